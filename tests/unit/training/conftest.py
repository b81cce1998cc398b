from __future__ import annotations

from tests.support.hyper_networks import one_thread

__all__ = ["one_thread"]
