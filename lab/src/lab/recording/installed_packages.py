"""A stand-in for pkg_resources, which takes Sacred 0.1 s to import, for two lookups."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

INFO = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")


@dataclass(frozen=True)
class Package:
    """An installed package, with the names of pkg_resources."""

    project_name: str
    version: str
    info: Path

    def _get_metadata(self, name: str) -> list[str]:
        return (self.info / name).read_text("utf-8").split()


class WorkingSet:
    """All packages that this process can import."""

    def __iter__(self) -> Iterator[Package]:
        for folder in sys.path:
            for path in Path(folder).glob("*-info"):
                if found := INFO.fullmatch(path.name):
                    name = re.sub(r"[^A-Za-z0-9.]+", "-", found["name"])
                    yield Package(name, found["version"], path)

    @property
    def by_key(self) -> dict[str, Package]:
        return {one.project_name.lower(): one for one in reversed([*self])}


def find_resource(package: str, name: str) -> str:
    """Find a file of an imported package."""
    return str(Path(sys.modules[package].__path__[0], name))


def make_module() -> ModuleType:
    """Make the module that Sacred imports as pkg_resources."""
    module = ModuleType("pkg_resources", __doc__)
    vars(module).update(working_set=WorkingSet(), resource_filename=find_resource)
    return module
