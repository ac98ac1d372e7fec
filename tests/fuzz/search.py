"""A coverage-guided search in one target: `python -m tests.fuzz.search TARGET SECONDS SEED CORPUS...`.

The search is that of libFuzzer, by atheris. Inputs that reach new code are added to the first corpus. The process ends
with status 0 after these seconds, and with another one at the first input that passes a limit; its last line is the
count of inputs, the growth and the longest turn as JSON.
"""

import base64
import json
import os
import sys
import traceback
from pathlib import Path
from types import FunctionType

import atheris

from tests.fuzz.limits import InputLimits
from tests.fuzz.targets import FuzzTarget, find_target

FAILED = 77
"""The exit status for an input that passes a limit, as libFuzzer has it."""


def instrument(target: FuzzTarget) -> None:
    """Let the search see which code of the target an input reaches; all code would take longer than the search."""
    for name in [name for name in sys.modules if name.startswith(target.code)]:
        module = sys.modules[name]
        for part in (module, *(each for each in vars(module).values() if isinstance(each, type))):
            for each in list(vars(part).values()):
                if isinstance(each, FunctionType) and each.__module__ == name:
                    atheris.instrument_func(each)


def main() -> None:
    """Search for the seconds that are given, and end the process."""
    name, seconds, seed, *corpora = sys.argv[1:]
    target = find_target(name)
    instrument(target)
    with target.open() as check:
        for path in sorted(path for corpus in corpora for path in Path(corpus).iterdir()):
            check(path.read_bytes())  # caches fill before anything is measured
        limits = InputLimits(float(seconds))

        def run(data: bytes) -> None:
            try:
                limits.run(check, data)
            except BaseException:  # noqa: BLE001 -- whatever it is, it ends the process, and the input is printed
                traceback.print_exc()
                print(f"{name} fails at this input, in base64: {base64.b64encode(data).decode()}", flush=True)
                os._exit(FAILED)
            if limits.is_over():
                print(json.dumps(limits.figures()), flush=True)
                os._exit(0)  # what is open is the kernel's to close

        options: tuple[str, ...] = (
            f"-max_total_time={int(seconds) + 60}",
            f"-seed={seed}",
            f"-max_len={target.longest}",
            "-timeout=60",
        )
        options += ("-len_control=0", "-rss_limit_mb=1500", f"-artifact_prefix={corpora[0]}/failed-")
        atheris.Setup([sys.argv[0], *options, *corpora], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
