"""Requests are answered after the subshell that answered the ones before has ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.explorers import AttentionExplorer, DepthUpload
from probes.explorers.shared.subshells import heed_ended
from tests.models import tiny_model


def connection(answered_last: str | None) -> Any:
    """A connection of ipykernel that has answered a message of a subshell."""
    comm = pytest.importorskip("ipykernel.comm").Comm(target_name="widget", show_warning=False)
    if not hasattr(comm, "_reply_subshell_for"):
        pytest.skip("this ipykernel does not choose subshells")
    comm._reply_subshell_id = answered_last
    return comm


@pytest.mark.parametrize(
    ("answered_last", "named", "goes_to"),
    [
        ("ended", "alive", "alive"),
        ("ended", None, None),
        ("ended", "ended too", None),
        ("other", "alive", "other"),
        (None, "alive", None),
    ],
)
def test_messages_go_to_a_subshell_that_lives(
    answered_last: str | None, named: str | None, goes_to: str | None
) -> None:
    comm = connection(answered_last)
    heed_ended(comm, lambda: ["alive", "other"])
    assert comm._reply_subshell_for({"method": "custom"}, named) == goes_to


def test_explorers_and_uploads_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    heeded: list[object] = []
    monkeypatch.setattr("probes.explorers.shared.living.heed_ended", heeded.append)
    explorer = AttentionExplorer(tiny_model(), np.zeros((56, 70, 3), np.uint8))
    upload = DepthUpload(tiny_model())
    assert heeded == [explorer.comm, upload._chooser.comm]
