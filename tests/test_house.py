"""The house rules that no other tool checks: what lies where, who may import whom, and versions stated in one voice."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")
# Where conda-forge's name is another.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "huggingface-hub": "huggingface_hub"}
TOP_LEVEL = {
    *("dpt", "probes", "notebooks", "tests", ".ci"),
    *("environment.yml", "README.md", "ARCHITECTURE.md", "pyproject.toml", "constraints.txt", "Makefile", "LICENSE"),
    *(".gitattributes", ".gitignore", ".pre-commit-config.yaml"),
}
EXTRAS = ("lab", "scale", "onnx", "test")
DPT_IMPORTS = {"torch", "numpy", "safetensors", "PIL"}
# Inside the functions that do, so that nothing else needs them.
DPT_IMPORTS_TO_DOWNLOAD = {"huggingface_hub"}
DPT_IMPORTS_TO_EXPORT = {"onnx", "onnxruntime", "onnxscript"}


def project_files() -> list[Path]:
    """Files that are, or would be, committed; relative to the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no telling the project's files from others")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()]


def requirements(*extras: str) -> dict[str, Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins() -> dict[str, list[Requirement]]:
    """Lines of constraints.txt by name; several lines of one name differ in their markers."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def pinned(name: str, python: str) -> Version | None:
    environment = {"python_version": python, "python_full_version": f"{python}.9"}
    for requirement in pins().get(name, []):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            return Version(specifier.version)
    return None


def test_the_top_level_is_as_designed():
    assert {path.parts[0] for path in project_files()} == TOP_LEVEL


def test_no_file_is_called_after_nothing():
    shapeless = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [str(path) for path in project_files() if path.stem.lower() in shapeless] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_stripped(path: Path):
    check = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}; run: pre-commit run nbstripout --all-files"


def test_the_check_finds_a_notebook_with_output(tmp_path: Path):
    import nbformat.v4 as notebook

    cell = notebook.new_code_cell("1", execution_count=1, outputs=[notebook.new_output("stream", text="1")])
    path = tmp_path / "run.ipynb"
    path.write_text(json.dumps(notebook.new_notebook(cells=[cell])))
    with pytest.raises(AssertionError, match="would have stripped"):
        test_notebooks_are_committed_stripped(path)


# Versions


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", sorted(requirements(*EXTRAS)))
def test_every_direct_dependency_is_pinned_within_its_range(name: str, python: str):
    version = pinned(name, python)
    assert version is not None, f"{name} is not in constraints.txt"
    assert version in requirements(*EXTRAS)[name].specifier


def test_constraints_are_exact_and_of_no_one_machine():
    text = (ROOT / "constraints.txt").read_text()
    for name, lines in pins().items():
        for line in lines:
            (specifier,) = line.specifier
            assert specifier.operator == "==", f"{name} is not pinned exactly"
            assert Version(specifier.version).local is None, f"{name} is pinned to a local version"
            assert line.url is None
    assert not re.search(r"^\s*-|://|@ ", text, re.MULTILINE), "no options, addresses or paths"


def test_what_is_installed_here_is_what_is_pinned():
    """Not a fault of the code if it fails: this environment was not installed with -c constraints.txt."""
    from importlib.metadata import distributions

    if not os.environ.get("CI") and not (Path(sys.prefix) / ".installed-test").exists():
        pytest.skip("this environment was not made by make test")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    # Not all of sys.path: importing setuptools adds a folder with its own copies of some packages.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    installed = {canonicalize_name(d.name): Version(d.version).public for d in distributions(path=folders)}
    apart = {
        name: (version, str(pin))
        for name, version in installed.items()
        if (pin := pinned(name, python)) is not None and pin.public != version
    }
    assert apart == {}
    assert set(requirements(*EXTRAS)) <= set(installed)


def test_conda_environment_repeats_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = {}
    for entry in environment["dependencies"]:
        if isinstance(entry, str):
            name, specifier = re.fullmatch(r"([a-z0-9_-]+)(.*)", entry).groups()
            conda[name] = SpecifierSet(specifier)
        else:
            assert entry == {"pip": ["-e ."]}, "what conda-forge has comes from conda-forge"
    assert conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert conda.pop("pip") == SpecifierSet()
    assert conda == {CONDA_NAMES.get(name, name): r.specifier for name, r in requirements(*EXTRAS[:-1]).items()}
    assert environment["name"] == PROJECT["name"]


def test_every_mention_of_the_supported_pythons_agrees():
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in ("3.10", *PYTHONS, "3.14") if f"{v}.0" in supported] == list(PYTHONS)
    classified = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if ":: Python :: 3." in line}
    assert classified == set(PYTHONS)
    makefile = (ROOT / "Makefile").read_text()
    assert "(3, 11) <= v < (3, 14)" in makefile
    assert "3.11, 3.12 or 3.13" in makefile
    assert "3.11, 3.12 or 3.13" in (ROOT / "README.md").read_text()


# Imports


def imported(path: Path, at_once: bool = False) -> set[str]:
    """Top-level names of a file's absolute imports; at_once: without those inside functions and `if` blocks."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted(ROOT.glob("dpt/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_dpt_imports_only_what_it_may(path: Path):
    assert imported(path, at_once=True) <= DPT_IMPORTS
    also = (
        DPT_IMPORTS_TO_DOWNLOAD
        if path.stem in ("hub", "hub_download")
        else DPT_IMPORTS_TO_EXPORT
        if "export" in path.parts
        else set()
    )
    assert imported(path) <= DPT_IMPORTS | also


@pytest.mark.parametrize("path", sorted(ROOT.glob("probes/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_need_no_jupyter(path: Path):
    """Base dependencies are enough to import anything but the explorers and the cluster; the extras are for what is
    done then."""
    used = ((), ("lab",), ("lab", "scale"))
    base, lab, extra = ({import_name(name) for name in requirements(*extras)} for extras in used)
    needed = lab if "explorers" in path.parts else extra if path.name == "dask_engine.py" else base
    assert imported(path, at_once=True) <= needed | {"dpt", "probes"}
    assert imported(path) <= extra | {"dpt", "probes", "IPython"}  # ipywidgets depends on IPython


def import_name(requirement: str) -> str:
    return {"pillow": "PIL"}.get(requirement, requirement)


COPIED = """
import sys
sys.modules["dpt"] = sys.modules["probes"] = None  # any import of either now fails

from elsewhere.vendored import depth_models
from elsewhere.vendored.depth_models.demo import sample, samples

model = depth_models.load("demo")
depth = model.predict(sample(samples()[0])[0], size=112)
assert depth.min() < depth.max()
print(depth_models.__file__)
"""


def run_copied(folder: Path, spoil: str = "") -> subprocess.CompletedProcess[str]:
    """Run the dpt folder under another name, two packages deep, in a project of its own."""
    package = folder / "elsewhere" / "vendored"
    shutil.copytree(ROOT / "dpt", package / "depth_models", ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "depth_models" / "head.py").open("a") as file:
        file.write(spoil)
    # -P -E: the working folder and PYTHONPATH stay out, so that the copy is found where this test puts it.
    script = f"import sys; sys.path.insert(0, {str(folder)!r})\n{COPIED}"
    command = [sys.executable, "-P", "-E", "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_dpt_folder_runs_when_copied_into_another_project(tmp_path: Path):
    done = run_copied(tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


@pytest.mark.parametrize("spoil", ["\nimport probes\n", "\nfrom dpt.fusion import Fusion\n"])
def test_the_copy_fails_with_an_import_that_leaves_the_folder(tmp_path: Path, spoil: str):
    done = run_copied(tmp_path, spoil)
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


# Layers


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache", str(root / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def copied_house(folder: Path) -> Path:
    for name in ("dpt", "probes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_layers_hold_in_a_copy(tmp_path: Path):
    done = lint_imports(copied_house(tmp_path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "spoil", "found"),
    [
        ("dpt/fusion.py", "import probes.tokens", "dpt.fusion -> probes.tokens"),
        ("probes/tokens.py", "from .runs import store", "probes.tokens -> probes.runs.store"),
        ("probes/runs/video.py", "def f():\n    from ..cli import app", "probes.runs.video -> probes.cli"),
        ("dpt/vit.py", "from .checkpoints import keys", "dpt.vit -> dpt.checkpoints.keys"),
        ("dpt/head.py", "from .model import DPT", "No cycles are allowed in dpt"),
        ("probes/runs/disk.py", "from . import store", "No cycles are allowed in probes.runs"),
    ],
)
def test_an_import_that_breaks_a_layer_or_makes_a_circle_is_found(tmp_path: Path, file: str, spoil: str, found: str):
    root = copied_house(tmp_path)
    with (root / file).open("a") as opened:
        opened.write(f"\n{spoil}\n")
    done = lint_imports(root)
    assert done.returncode == 1
    assert found in " ".join(done.stdout.split())


def test_the_files_that_the_architecture_names_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_A-Z]+)*\.(?:py|js|md))`", text))
    assert len(named) > 40
    folders = [
        ROOT,
        *(ROOT / "probes" / name for name in ("runs", "explorers", "explorers/attention")),
        ROOT / "dpt/checkpoints",
    ]
    missing = [name for name in sorted(named) if not any((folder / name).exists() for folder in folders)]
    assert missing == []


# Commands


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_has_the_targets_that_the_readme_names():
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"lab", "test", "demo", "help"} <= named
    assert named <= makefile_targets()


@pytest.mark.parametrize(("python", "found"), [("3.10", True), ("3.14", True), ("3.11", False), ("3.13", False)])
def test_make_refuses_an_unsupported_python_and_says_which(tmp_path: Path, python: str, found: bool):
    """An interpreter that only knows how to tell its version: supported ones get past the check, to making .venv."""
    fake = tmp_path / "python"
    major, minor = python.split(".")
    fake.write_text(
        f'#!{sys.executable}\nimport sys\nsys.version_info = ({major}, {minor}, 0, "final", 0)\n'
        'if sys.argv[1] == "-c":\n    exec(sys.argv[2])\nelse:\n    sys.exit("past the check")\n'
    )
    fake.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(["make", "lab", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    refused = f"is Python {python}; DPT Workbench needs 3.11, 3.12 or 3.13" in done.stderr
    assert refused == found
    assert ("past the check" in done.stderr) == (not found)


def test_make_says_that_there_is_no_python(tmp_path: Path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "test", "PYTHON=no-such-python"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "No no-such-python found" in done.stderr


# The README


def test_the_readme_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import Image

    from dpt.demo import sample, samples

    script, widget, many, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    picture, _ = sample(samples()[0])
    Image.fromarray(picture).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(script, names)
    assert names["depth"].shape == picture.shape[:2]
    exec(widget, names)
    (tmp_path / "photos/monday").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "photos/monday/0001.jpg")
    exec(many, names)
    assert names["run"].stack("norms").sizes["image"] == 1
    assert (tmp_path / "norms.safetensors").exists()


def test_the_readme_s_pictures_are_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert [picture for picture in pictures if Path(picture) not in project_files()] == []


def test_the_commands_in_the_readme_are_commands():
    from typer.main import get_command

    from probes.cli import app

    named = set(re.findall(r"\bdpt-workbench ([a-z][a-z-]*)", (ROOT / "README.md").read_text()))
    assert {"lab", "depth", "inspect", "bench"} <= named
    assert named <= set(get_command(app).commands)
