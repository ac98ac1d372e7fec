"""Writes a recorded tree of cgroup files below a directory."""

from pathlib import Path

CONTAINER = "4f3c5201a7b18d5e6c9b" + "0" * 44
PID = 4242
TREES = Path(__file__).parents[2] / "data" / "cgroup"


def tree_names() -> list[str]:
    """The names of all recorded trees."""
    return sorted(path.stem for path in TREES.glob("*.txt"))


def tree_files(name: str) -> dict[str, str]:
    """The files of a tree, by path."""
    parts = (TREES / f"{name}.txt").read_text().split("== ")[1:]
    return {path: text for path, _, text in (part.partition("\n") for part in parts)}


def write_tree(name: str, root: Path) -> None:
    """Write the files of a tree below `root`."""
    for path, text in tree_files(name).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
