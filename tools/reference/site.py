"""What pages of the reference refer to: each other, and the pages of the sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.reference.members import Member


@dataclass(frozen=True)
class Site:
    """What pages refer to.

    Args:
        members: All that is public.
        sources: Path of the page of each source file.
    """

    members: list[Member]
    sources: Mapping[Any, str]

    @property
    def importable(self) -> dict[str, str]:
        """The package of each name."""
        return {member.name: member.package for member in self.members}

    def find(self, value: Any) -> Member | None:
        """The member that an object is."""
        return next((member for member in self.members if member.value is value), None)

    def named(self, name: str) -> Member | None:
        """The member of a name, with or without its package."""
        return next((member for member in self.members if name in (member.name, member.path, member.title)), None)

    def link(self, name: str, here: Member) -> str | None:
        """Address of the page of a name, as seen from another page."""
        member = self.named(name)
        return None if member is None or member is here else address(here, f'reference/{member.page}.md')


def address(here: Member, path: str) -> str:
    """Address of a page of the site as seen from the page of a member."""
    depth = len(f'reference/{here.page}'.split('/')) - 1
    return '../' * depth + path
