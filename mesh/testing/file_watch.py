"""A watch of files for tests, which tells what it is told to tell."""

from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from mesh.platform.logs.file_watch import FileWatch


class ManualFileWatch(FileWatch):
    """Tells of nothing by itself, like a file system without inotify."""

    def __init__(self, *, refuses: bool = False, before: Callable[[str], None] = lambda _: None) -> None:
        """`before` is called with the key before a file is watched."""
        self.asked: set[str] = set()
        self.news: set[str] = set()
        """The keys that are told of next."""
        self._refuses = refuses
        self._before = before

    @override
    def ask(self, key: str, path: Path) -> bool:
        self._before(key)
        self.asked.add(key)
        return not self._refuses

    @override
    def told(self) -> set[str]:
        news, self.news = self.news, set()
        return news

    @override
    def close(self) -> None:
        """Nothing is open."""
