"""Runs the Dockerfile's build stage without Docker: the same copies, the same commands, in the same order.

``python deploy/try_build.py`` takes a minute and needs the network. What it built makes a site at the end.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stage = text.split("\nFROM ")[1]
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "source", Path(name) / "videostore"
        source.mkdir()
        for words in (line.split() for line in re.findall(r"^COPY (.*)$", stage, re.MULTILINE)):
            for one in words[:-1]:
                copy(ROOT / one, source / (one if words[-1] == "./" else words[-1]))
        for command in re.findall(r"^RUN (.*)$", stage, re.MULTILINE):
            run(command.replace("/opt/videostore", str(target)), source)
        run(f"{target}/bin/videostore --version", source)
        run(f"{target}/bin/videostore init {name}/site", source)


def copy(what: Path, where: Path) -> None:
    if what.is_dir():
        shutil.copytree(what, where, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(what, where)


def run(command: str, where: Path) -> None:
    sys.stdout.write(f"$ {command}\n")
    sys.stdout.flush()
    done = subprocess.run(["/bin/sh", "-ec", command], cwd=where, check=False)  # noqa: S603 - the Dockerfile's own
    if done.returncode:
        sys.exit(f"failed: {command}")


if __name__ == "__main__":
    main()
