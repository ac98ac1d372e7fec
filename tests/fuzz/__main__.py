"""Searches all targets, each for its share of the time: `python -m tests.fuzz --minutes 5`, which is `make fuzz`.

Exit status 1: an input passed a limit. The output has it in base64, and the seed.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS, FuzzTarget, find_target

START = 120
"""Seconds that a search may take beside its share: it loads the code and runs the corpus."""
MOST_KEPT = 120
"""The most inputs in the corpus of a target, so that the repository stays small."""


def search(target: FuzzTarget, seconds: int, seed: int, found: Path) -> tuple[bool, str]:
    """Search one target; return whether it held, and the output."""
    target.corpus.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "tests.fuzz.search", target.name, str(seconds), str(seed), str(found))
    try:
        ended = subprocess.run(
            (*command, str(target.corpus)),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + START,
        )
    except subprocess.TimeoutExpired as error:
        return False, f"no end in {error.timeout} s\n{(error.stdout or b'').decode(errors='replace')[-4000:]}"
    return ended.returncode == 0, ended.stdout.decode(errors="replace")


def keep(target: FuzzTarget, found: Path) -> int:
    """Add the inputs that reached new code to the corpus of the target, the shortest first; return how many."""
    room = MOST_KEPT - sum(1 for _ in target.corpus.iterdir())
    new = sorted(
        (path for path in found.iterdir() if path.is_file()), key=lambda path: (path.stat().st_size, path.name)
    )
    kept = new[: max(0, room)]
    for path in kept:
        shutil.copy(path, target.corpus / path.name)
    return len(kept)


def main(arguments: Sequence[str]) -> int:
    """Search, and print one line for each target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--keep", action="store_true", help="add inputs that reach new code to the corpus")
    options = parser.parse_args(arguments)
    targets = [find_target(name) for name in options.target] if options.target else TARGETS
    seed = random.randrange(1, 1 << 31) if options.seed is None else options.seed
    seconds = max(1, int(options.minutes * 60 / len(targets)))
    print(f"seed {seed}; {seconds} s for each of {len(targets)} targets", flush=True)
    failed = []
    for target in targets:
        with tempfile.TemporaryDirectory() as directory:
            held, output = search(target, seconds, seed, Path(directory))
            if held:
                figures = json.loads(output.splitlines()[-1])
                kept = keep(target, Path(directory)) if options.keep else 0
                print(
                    f"{target.name}: {figures['inputs']} inputs, growth {figures['growth'] / (1 << 20):.1f} MiB, "
                    f"longest turn {figures['longest'] * 1000:.0f} ms, {kept} kept",
                    flush=True,
                )
            else:
                failed.append(target.name)
                print(f"{target.name} FAILED with seed {seed}:\n{output[-6000:]}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; run it again with --seed {seed} --target NAME", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
