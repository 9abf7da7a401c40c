"""The project around the product: sizes of files, what the documents promise, what the locks hold."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import vfwire
from vfwire.cli import group

ROOT = Path(__file__).parent.parent
LONGEST_FILE = 400
LONGEST_EXAMPLE = 80
FOLDERS = ("src", "tests", "bench", "examples", "tools")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "bench/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXTS = [
    *SOURCES,
    *DOCUMENTS,
    ROOT / "CHANGELOG.md",
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
    ROOT / ".ci" / "run",
]
# A place on somebody's own machine. Spelled in two halves, since this file is read too.
LOCAL_PATH = re.compile(
    r"(?<![\w.$}])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers")) + r")/\w"
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_are_short(path: Path) -> None:
    if "layouts" not in path.parts:  # tables of facts are as long as the facts
        assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_examples_are_shorter() -> None:
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    too_long = [path.name for path in examples if len(path.read_text().splitlines()) >= LONGEST_EXAMPLE]
    assert not too_long


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_no_local_paths(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert not [line for line in lines if LOCAL_PATH.search(line)]


def test_what_a_local_path_is() -> None:
    assert LOCAL_PATH.search("see " + "/ho" + "me/ada/x")
    assert not LOCAL_PATH.search("see src/work/x and $X" + "/ro" + "ot/y")


def commands(document: Path, program: str) -> Iterator[list[str]]:
    """The words of each `program …` in a document's code blocks and `code` spans, the program itself left out."""
    text = document.read_text()
    blocks = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    indented = re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in "\n".join([*blocks, *indented, *spans]).splitlines():
        words = line.split("#")[0].strip().removeprefix("$ ").removeprefix("sudo ").split()
        if len(words) > 1 and words[0] == program:
            yield words[1:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_make_targets_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(document, "make"):
        assert words[0] in targets, f"make {words[0]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_vfwire_commands_in_documents_exist(document: Path) -> None:
    for words in commands(document, "vfwire"):
        command: click.Command = group
        context = click.Context(group)
        while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z0-9-]*", words[0]):
            found = command.get_command(context, words.pop(0))
            assert found is not None, f"vfwire {words}"
            command = found
        known = {"--help"} | {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
        assert not unknown, f"{command.name} has no {unknown}"


def locked(name: str) -> dict[str, str]:
    """Package and version of each line of a lock, which must carry at least one hash."""
    pins: dict[str, str] = {}
    for entry in re.split(r"^(?=[a-z])", (ROOT / name).read_text(), flags=re.MULTILINE):
        if entry.strip():
            found = re.match(r"([a-z0-9._-]+)==(\S+)", entry)
            assert found and "--hash=sha256:" in entry, f"not pinned: {entry[:40]}"
            pins[found[1]] = found[2]
    return pins


def test_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime, everything = locked("requirements.lock"), locked("requirements-dev.lock")
    wanted = {re.split(r"[><=[]", line)[0] for line in project["dependencies"]}
    assert wanted <= runtime.keys()
    assert {
        re.split(r"[><=[]", line)[0] for line in project["optional-dependencies"]["dev"]
    } <= everything.keys()
    assert runtime.items() <= everything.items()
    assert "matplotlib" not in runtime  # drawing is an extra


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert vfwire.__version__ == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
