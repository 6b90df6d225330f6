"""The optimizers of a training run, and the way several processes share their work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
import torch.distributed
from torch import Tensor, nn

from ..errors import InvalidValueError
from ..model import DPT
from .settings import Settings

TRANSPOSED = ("reassembly.resize.0", "reassembly.resize.1")


class State(TypedDict):
    """The state of all optimizers of all processes."""

    adamw: dict[str, object]
    momenta: list[Tensor]  # of Muon, one per matrix


def rank_and_workers() -> tuple[int, int]:
    """(rank of this process, number of processes that train together)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class Optimizers:
    """Muon for the matrices of the blocks and the kernels of the convolutions, AdamW for all other parameters."""

    def __init__(self, model: DPT, settings: Settings) -> None:
        """The model must be in channels_last memory format."""
        self.views: list[tuple[nn.Parameter, nn.Parameter]] = []  # kernels (out, in, k, k), their view (out, k k in)
        matrices: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dim() <= 1 or name.endswith("class_token"):
                vectors.append(parameter)
            elif settings.matrix_rate > 0 and name.startswith("encoder.blocks."):
                matrices.append(parameter)
            # Transposed convolutions are stored (in, out, k, k), and a single output channel is not a matrix.
            elif settings.matrix_rate > 0 and len(parameter) > 1 and not name.startswith(TRANSPOSED):
                flat = nn.Parameter(_flat(parameter.data))
                if flat.data_ptr() != parameter.data_ptr():  # Muon would train a copy
                    raise InvalidValueError(f"the kernels of {name} must be in channels_last memory format")
                self.views.append((parameter, flat))
                matrices.append(flat)
            else:
                others.append(parameter)
        groups = [{"params": others, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        self.all: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98))]
        # Muon's own matrix products take a quarter of a step, so each process computes them for its share.
        rank, workers = rank_and_workers()
        matrices.sort(key=lambda matrix: -matrix.numel())
        self.shares = [matrices[k::workers] for k in range(workers)]
        if matrices:
            own = self.shares[rank]
            self.all.append(torch.optim.Muon(own, lr=settings.matrix_rate, weight_decay=0.02, momentum=0.95))
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.all]

    def step(self, share: float) -> None:
        """Update the parameters from their gradients. share: the part of the peak learning rates to use."""
        for kernels, flat in self.views:
            assert kernels.grad is not None
            flat.grad = _flat(kernels.grad)
        for optimizer, peaks in zip(self.all, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = share * peak
            optimizer.step()
        broadcast_shares([[matrix.data for matrix in part] for part in self.shares])

    def state_dict(self) -> State:
        """The state of all processes. All processes must call this."""
        return {"adamw": self.all[0].state_dict(), "momenta": [part.clone() for part in self._momenta()]}

    def load_state_dict(self, stored: State | Mapping) -> None:
        """Restore what `state_dict` returned, also for another number of processes."""
        self.all[0].load_state_dict(stored["adamw"])
        for matrix, momentum in zip(self._matrices(), stored["momenta"], strict=True):
            if matrix in self._own():
                self.all[1].state[matrix]["momentum_buffer"] = momentum.to(matrix.device)

    def _own(self) -> set[nn.Parameter]:
        return set(self.shares[rank_and_workers()[0]])

    def _matrices(self) -> list[nn.Parameter]:
        """All matrices, in an order that does not depend on the number of processes."""
        workers = len(self.shares)
        return [self.shares[k % workers][k // workers] for k in range(sum(map(len, self.shares)))]

    def _momenta(self) -> list[Tensor]:
        """The momentum of every matrix, in the order of `_matrices`."""
        if len(self.all) == 1:
            return []
        states = self.all[1].state
        known = {m: states[m]["momentum_buffer"] if m in states else torch.zeros_like(m) for m in self._matrices()}
        broadcast_shares([[known[matrix] for matrix in part] for part in self.shares])
        return [known[matrix] for matrix in self._matrices()]


def broadcast_shares(shares: Sequence[Sequence[Tensor]]) -> None:
    """Copy each process's share of tensors to all processes, in place.

    Args:
        shares: One list of tensors per process, with the same shapes in every process.
    """
    rank, workers = rank_and_workers()
    if workers == 1 or not any(shares):
        return
    for sender, tensors in enumerate(shares):
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.broadcast(flat, sender)
        if sender != rank:
            pieces = flat.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(pieces, tensors, strict=True)])


def _flat(kernels: Tensor) -> Tensor:
    """(out, in, k, k) -> (out, k k in): a view, because kernels are stored channels last."""
    return kernels.permute(0, 2, 3, 1).flatten(1)
