"""The wheel has every tracked file of the packages, byte for byte, and no other.

python tests/wheel_check.py WHEEL
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
PACKAGES = ("alexsim", "kernels/alexsim_kernels", "profiles/alexsim_profiles")


def main(wheel: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    wanted = {
        name.removeprefix("kernels/").removeprefix("profiles/"): (ROOT / name).read_bytes()
        for name in tracked
    }
    with ZipFile(wheel) as file:
        packed = {
            name: file.read(name)
            for name in file.namelist()
            if not name.partition("/")[0].endswith(".dist-info")
        }
    differ = sorted(
        name for name in wanted.keys() | packed.keys() if wanted.get(name) != packed.get(name)
    )
    if differ:
        sys.exit(f"{wheel} differs from the packages in {', '.join(differ)}")
    print(f"{len(packed)} files as in the packages")


if __name__ == "__main__":
    main(sys.argv[1])
