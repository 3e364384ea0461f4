"""The rules, a file per operator family. Importing this package fills the registry."""

from importlib import import_module
from pkgutil import iter_modules

from ..registry import registry

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

OWN_RULES = registry.version  # as long as this is the registry's, all rules are ours

__all__ = ["OWN_RULES", "registry"]
