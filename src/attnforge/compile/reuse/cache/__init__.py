"""The content store behind the compile cache: outputs of pure compile steps, by key, here and in a shared store.

Trust is in the entry, not in the store: what does not match its key is never handed out (``entry``). A store that is
slow or down costs a bounded time (``guard``).
"""

from attnforge.compile.reuse.cache.guard import Limits, Remote
from attnforge.compile.reuse.cache.location import CREDENTIAL_VARIABLES, SECRET
from attnforge.compile.reuse.cache.remote import check_remote, open_remote
from attnforge.compile.reuse.cache.tiers import Stats, StepCache

__all__ = ["CREDENTIAL_VARIABLES", "SECRET", "Limits", "Remote", "Stats", "StepCache", "check_remote", "open_remote"]
