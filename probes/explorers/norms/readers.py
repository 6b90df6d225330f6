"""What reads the output of a block: its tokens, and therefore its norms, are the input of the next block.

A token with a large norm in block k takes part in attention with that norm in block k + 1, not in block k.
"""

from __future__ import annotations

from dpt import Config


def reader_of(config: Config, block: int) -> int | None:
    """The block that reads a block's output, or None for the last block."""
    return block + 1 if block + 1 < config.depth else None


def read_words(config: Config, block: int) -> str:
    """Says what reads a block's output, e.g. "block 9 reads the output of block 8"."""
    reader = reader_of(config, block)
    if reader is not None:
        return f"block {reader} reads the output of block {block}"
    stages = [stage for stage in range(4) if config.stage_block(stage) == block]
    read = f", only reassembly (stage {stages[0]})" if stages else ""
    return f"no block reads the output of block {block}, the last block{read}"
