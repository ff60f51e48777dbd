"""The house: what is imported for which question, what is read how often, how large a room is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexsim.cli.app import main
from alexsim.data import discover

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sys.modules["alexsim"].__file__ or "").parent
FILLERS = {"one", "found", "own"}
_MOST_IN_A_FILE, _MOST_IN_A_ROOM = 350, 4500


def sources(root: Path = PACKAGE) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*.py")))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_and_no_room_is_too_large() -> None:
    files = {str(path.relative_to(PACKAGE)): lines(path) for path in sources()}
    assert {name: count for name, count in files.items() if count > _MOST_IN_A_FILE} == {}
    rooms: dict[str, int] = {}
    for name, count in files.items():
        rooms[name.partition("/")[0]] = rooms.get(name.partition("/")[0], 0) + count
    assert {name: count for name, count in rooms.items() if count > _MOST_IN_A_ROOM} == {}


def test_no_name_is_a_filler() -> None:
    """``one``, ``found`` and ``own`` say nothing of what they hold."""
    bound = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ""
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.arg):
                name = node.arg
            if name in FILLERS:
                bound.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}")
    assert bound == []


@pytest.mark.parametrize(
    ("line", "absent"),
    [
        ("simulate --recipe 2012 --json", ("torch", "alexsim.train", "alexsim.evaluate")),
        ("flops --json", ("torch", "numpy", "alexsim.counters", "alexsim.train")),
        ("memory", ("torch", "numpy", "alexsim.costs", "alexsim.data.images")),
        ("profile --help", ("torch", "alexsim.counters")),
    ],
)
def test_a_question_imports_what_it_needs(line: str, absent: tuple[str, ...]) -> None:
    script = (
        "import sys\nfrom alexsim.cli.app import main\n"
        f"try:\n    main({line.split()!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {absent!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines()[-1] == "[]"


def test_a_set_is_scanned_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin a run, to give it a new head, and to go on with it."""
    scans: list[Path] = []
    scan = discover.list_source

    def counted(source: Path, *others: object) -> object:
        scans.append(source)
        return scan(source, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(discover, "list_source", counted)
    small = [
        "--data",
        str(folder),
        "--steps",
        "1",
        "--batch",
        "4",
        "--threads",
        "1",
        "--workers",
        "1",
    ]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    for line in (
        ["--net", "lenet-5", *small, "-o", first],
        ["--init-from", first, "--new-head", *small, "-o", second],
        ["--resume", first, "--steps", "2"],
    ):
        scans.clear()
        with pytest.raises(SystemExit) as end:
            main(["train", *line])
        assert not end.value.code
        assert scans == [folder]


def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    """Users' scripts have no ``if __name__ == "__main__"``; all processes begin in one place."""
    script = tmp_path / "mine.py"
    script.write_text(
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from alexsim.spawn import SPAWN\n"
        "print('once')\n"
        "with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:\n"
        "    print(list(pool.map(abs, (-1, -2))))\n"
        "import __main__\n"
        "print(__main__.__file__ == __file__)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\n[1, 2]\nTrue\n", "")
    text = {path: path.read_text(encoding="utf-8") for path in sources()}
    assert [path for path, code in text.items() if "get_context(" in code] == []
    pools = [path for path, code in text.items() if "ProcessPoolExecutor(" in code]
    assert len(pools) > 3
    assert all(code.count("ProcessPoolExecutor(") == code.count("mp_context=SPAWN") for code in
               map(text.__getitem__, pools))  # fmt: skip
