"""Files are read as docker-compose 1.29 reads them, where that knows the form."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from mesh.sources.compose.files import load_compose_project

pytestmark = pytest.mark.skipif(
    shutil.which("docker-compose") is None and os.environ.get("CI") != "true", reason="docker-compose is not installed"
)

ENV = {"V": "v", "EMPTY": "", "QUOTED": "it's"}
STACKS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "several files": (
        (
            "version: '3.8'\nservices:\n  web: {image: i, labels: {a: '1', b: '2'}}\n  db: {image: i}\n",
            "version: '3.8'\nservices:\n  web: {labels: [b=3, c=4]}\n  db: {labels: {x: y}}\n",
        ),
        {},
    ),
    "forms of values": (
        (
            (
                "version: '3.8'\nservices:\n  web:\n    image: i\n    labels:\n      i: 010\n      f: 1.50\n"
                "      n: null\n      e: ''\n      s: '1.50'\n      big: 12345678\n"
            ),
        ),
        {},
    ),
    "variables": (
        (
            "version: '3.8'\nservices:\n  web:\n    image: i\n    labels:\n"
            + "".join(
                f"      k{number}: '{text}'\n"
                for number, text in enumerate(
                    [
                        "$V",
                        "${V}",
                        "$$V",
                        "${NONE:-x}",
                        "${EMPTY:-x}",
                        "${EMPTY-x}",
                        "${NONE-x}",
                        "${NONE:-a:-b}",
                        "${V:?m}",
                        "${V?m}",
                        "${EMPTY?m}",
                        "$NONE.",
                        "$QUOTED",
                    ]
                )
            ),
        ),
        {"QUOTED": "it's"},
    ),
    "a .env file": (
        (
            (
                "version: '3.8'\nservices:\n  web:\n    image: i\n    labels: ['a=$A', 'b=$B', 'c=$C', 'd=$D', "
                "'e=$E', 'v=$V', 'f=$F', 'g=$G', 'h=$H', 'i=$I']\n"
            ),
        ),
        {
            ".env": '# c\nA=1\nB="two words"\nC=\'$A\'\nexport D=4\nE=5 # c\nV=file\nF=a=b\nG=6#7\r\nH="x\\ny"\n\nI=\n',
        },
    ),
    "extends in one file": (
        (
            (
                "version: '3.8'\nservices:\n  base: {image: i, labels: {a: base, b: base}}\n"
                "  web: {extends: {service: base}, labels: {b: web}}\n  again: {extends: base, labels: [c=again]}\n"
            ),
        ),
        {},
    ),
    "extends of another file": (
        ("version: '3.8'\nservices:\n  web: {extends: {file: sub/x.yaml, service: base}, labels: {b: $V}}\n",),
        {"sub/x.yaml": "version: '3.8'\nservices:\n  base: {image: i, labels: ['a=$V', b=base]}\n"},
    ),
    "anchors": (
        (
            (
                "version: '3.8'\nx-l: &l {a: '1', b: '1'}\nservices:\n  web: {image: i, labels: {<<: *l, b: '2'}}\n"
                "  db: {image: i, labels: *l}\n"
            ),
        ),
        {},
    ),
    "the first form": (("web:\n  image: i\n  labels: {a: '1'}\ndb:\n  image: i\n  labels: [b=2]\n",), {}),
}


@pytest.mark.parametrize("stack", STACKS)
def test_labels_are_those_of_docker_compose(stack: str, tmp_path: Path) -> None:
    texts, others = STACKS[stack]
    paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    for name, text in others.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    command = ["docker-compose", *(part for path in paths for part in ("-f", str(path))), "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **ENV}
    done = subprocess.run(  # the program of Debian
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    theirs = {
        # The output is a compose file again, so a dollar sign is written twice.
        name: {
            key: str("" if value is None else value).replace("$$", "$")
            for key, value in (service.get("labels") or {}).items()
        }
        for name, service in yaml.safe_load(done.stdout)["services"].items()
    }
    content = load_compose_project(paths, ENV).content
    assert not content.broken
    assert {name: dict(service.labels) for name, service in content.services.items()} == theirs
