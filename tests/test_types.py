"""What type checkers and editors find of xopt: pyright and mypy, strict, from the environment that the tests run in.

Each page's examples are one program, as they are where the documentation runs them. Both tools check all pages in one run, and with
them ``WRONG``, whose errors they must find, so that what they accept says something.
"""

import ast
import importlib.util
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_docs import NAMES, ROOT, python_blocks

import xopt

pytest.importorskip("pyright")
pytest.importorskip("mypy")

PAGES = [name for name in NAMES if python_blocks(ROOT / name)]
LOOSE = {"cupy", "dask", "jax", "mlx", "mparray", "mpmath", "ndonnx", "onnxruntime", "optax", "optree", "tensorflow", "torch"}
"""Libraries that leave types unknown: of what comes from them, strict checks complain to whoever uses it."""
UNKNOWN = [f"reportUnknown{what}Type" for what in ("Argument", "Lambda", "Member", "Variable")]
CONFIG = {
    "typeCheckingMode": "strict",
    "reportMissingTypeStubs": False,  # libraries without types: nothing is known of what comes from them
    "reportDuplicateImport": False,  # each example of a page imports what it needs
    "reportWildcardImportFromLibrary": False,
}

WRONG = """\
import numpy as np
import xopt
from xopt.backends import fuse

state = xopt.lion_init(np.ones(3))
xopt.lion_step(state, grad=np.ones(3), learning_rate=0.1)  # wrong
xopt.lion_step(state, np.ones(3), 0.1)  # wrong
xopt.adam_step(state, np.ones(3))  # wrong
xopt.lion_step(state)  # wrong
xopt.lion.bind(betas=(0.9, 0.99))  # wrong
xopt.lion.bind(lr=0.1).step(state, np.ones(3), alpha=8.0)  # wrong
fuse(xopt.lion)(state, np.ones(3), learning_rate=0.1)  # wrong
fuse(xopt.lion_step)(xopt.sgd_init(np.ones(3)), np.ones(3))  # wrong
fuse(xopt.lion, donate=1.5)  # wrong
print(state.v)  # wrong
print(xopt.addam)  # wrong
print(state.m, xopt.lion_step(state=state, grad=np.ones(3), lr=0.1).params, xopt.__version__.upper())
"""


def program(page: str) -> str:
    """The examples of a page, on the lines that they have there."""
    text = ""
    for block in python_blocks(ROOT / page):
        text += "\n" * (block.line - text.count("\n")) + block.text
    return text


def modules(text: str) -> set[str]:
    """The modules that a program imports."""
    nodes = list(ast.walk(ast.parse(text)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return found


def file_of(page: str) -> str:
    return re.sub(r"\W", "_", page.removesuffix(".md")) + ".py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The pages as programs, far from the project; a module that is not installed here is one of which nothing is known."""
    made = tmp_path / "examples"
    made.mkdir()
    (made / "wrong.py").write_text(WRONG)
    (made / "pyrightconfig.json").write_text(json.dumps(CONFIG))
    for page in PAGES:
        text = program(page)
        names = modules(text)
        loose = any(name.partition(".")[0] in LOOSE for name in names)
        head = "".join(f"# pyright: {rule}=false\n" for rule in UNKNOWN) if loose else ""
        assert text.startswith("\n" * head.count("\n")), f"{page}: an example in its first lines"
        (made / file_of(page)).write_text(head + text[head.count("\n") :])
        for name in names:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                parts = name.split(".")
                for package in (made.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)):
                    package.mkdir(exist_ok=True)
                    (package / "__init__.py").write_text("from typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n")
    return made


def pyright(*arguments: str, cwd: Path) -> Any:
    command = [sys.executable, "-P", "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout)


def by_pyright(folder: Path) -> list[tuple[str, int, str]]:
    found = pyright(cwd=folder)["generalDiagnostics"]
    return [(Path(one["file"]).name, one["range"]["start"]["line"] + 1, f"{one['message']} ({one.get('rule')})") for one in found]


def by_mypy(folder: Path) -> list[tuple[str, int, str]]:
    """As the project's settings have it, so that what mypy keeps of libraries serves the check of xopt itself too."""
    files = ["wrong.py", *map(file_of, PAGES)]
    _, name, rest = (ROOT / "pyproject.toml").read_text().partition("[tool.mypy]")
    settings = name + rest.partition("[tool.ruff]")[0]
    looser = {  # for the examples: those of one page may each call their state `state`, and libraries leave types unknown
        "module": [name.removesuffix(".py") for name in files],
        "allow_redefinition": True,
        "disallow_untyped_calls": False,
        "disable_error_code": ["import-untyped"],
        "warn_unreachable": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in looser.items()]
    (folder / "pyproject.toml").write_text("\n".join([settings, "[[tool.mypy.overrides]]", *lines]))
    options = ["--scripts-are-modules", "--cache-dir", ROOT / ".mypy_cache"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mypy", *options, *files], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(\S+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return [(name, int(line), message) for name, line, message in found]


@pytest.mark.parametrize("check", [by_pyright, by_mypy])
def test_examples_type_check(check: Callable[[Path], list[tuple[str, int, str]]], folder: Path) -> None:
    """And what is wrong does not."""
    pages = {file_of(page): page for page in PAGES}
    errors = check(folder)
    assert [f"{pages[name]}:{line}: {message}" for name, line, message in errors if name in pages] == []
    wrong = {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    assert {line for name, line, _ in errors if name == "wrong.py"} == wrong


# --- names, defaults, ranges, states ---------------------------------------------------------------------------------------------


def test_signatures_as_pyright_sees_them(tmp_path: Path) -> None:
    """Of every rule: the names, kinds and defaults that the functions have, and the rule's own state, through fuse and bind too."""
    makers = {
        "init": "xopt.{0}_init",
        "step": "xopt.{0}_step",
        "method": "xopt.{0}.step",
        "bind": "xopt.{0}.bind",
        "bound": "xopt.{0}.bind(lr=0.5).step",
        "fused": "fuse(xopt.{0}).__call__",
        "fused step": "fuse(xopt.{0}_step, donate=True).__call__",
        "fused bound": "fuse(xopt.{0}.bind(lr=0.5)).__call__",
        "state": "xopt.{0}_init(0.5)",
        "count": "xopt.{0}_init(0.5).step",
    }
    asked = list(itertools.product(xopt.RULES, makers))
    lines = [f"reveal_type({makers[what].format(name)})\n" for name, what in asked]
    (tmp_path / "asked.py").write_text("import xopt\nfrom xopt.backends import fuse\n" + "".join(lines))
    answers = pyright(cwd=tmp_path)["generalDiagnostics"]
    assert {one["severity"] for one in answers} == {"information"}
    for (name, what), answer in zip(asked, answers, strict=True):
        shown = answer["message"].partition('" is "')[2].removesuffix('"')
        rule = xopt.RULES[name]
        if what in ("state", "count"):
            assert shown == (rule.state.__name__ if what == "state" else "int")
        else:
            signature, _, result = shown.partition(" -> ")
            assert result.startswith("Bound[" if what == "bind" else rule.state.__name__)
            given = inspect.signature(rule.step if what != "bind" else rule.bind).parameters.values()
            if what == "init":
                given = [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD), *list(given)[2:]]
            assert parameters(signature) == [(p.name, p.kind, p.default) for p in given], answer["message"]


def parameters(shown: str) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each, from a signature as pyright shows it."""
    names: dict[str, Any] = {}
    exec(f"from __future__ import annotations\ndef function{shown}: ...", names)
    return [(p.name, p.kind, p.default) for p in inspect.signature(names["function"]).parameters.values()]


class Editor:
    """pyright's language server, as an editor talks to it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-P", "-m", "pyright.langserver", "--stdio"]
        self._server = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._numbers = itertools.count(1)
        plain = {"documentationFormat": ["plaintext"]}
        document = {
            "hover": {"contentFormat": ["plaintext"]},
            "completion": {"completionItem": plain},
            "signatureHelp": {"signatureInformation": plain},
        }
        able = {"textDocument": document, "workspace": {"configuration": True}}
        self.ask("initialize", processId=None, rootUri=folder.as_uri(), capabilities=able)
        self._send(method="initialized", params={})

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def open(self, path: Path, text: str) -> None:
        opened = {"uri": path.as_uri(), "languageId": "python", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": opened})

    def ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._send(id=number, method=method, params=parameters)
        while True:
            message = self._receive()
            if "method" in message and "id" in message:  # the server asks for the editor's settings
                items = (message.get("params") or {}).get("items", [])
                settings = [{"pythonPath": sys.executable} if item["section"] == "python" else {} for item in items]
                self._send(id=message["id"], result=settings)
            elif message.get("id") == number:
                return message["result"]

    def _send(self, **message: Any) -> None:
        assert self._server.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._server.stdin.flush()

    def _receive(self) -> Any:
        assert self._server.stdout is not None
        size = 0
        while header := self._server.stdout.readline().strip():
            if header.lower().startswith(b"content-length:"):
                size = int(header.partition(b":")[2])
        assert size, "the language server has ended"
        return json.loads(self._server.stdout.read(size))


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    found = Editor(tmp_path)
    try:
        yield found
    finally:
        found.close()


def test_hover_and_completion_in_an_editor(editor: Editor, tmp_path: Path) -> None:
    path = tmp_path / "loop.py"
    editor.open(path, "import xopt\nstate = xopt.ademamix_init(1.0)\nxopt.ademamix_step(\nxopt.adem\n")

    def ask(method: str, line: int, character: int) -> Any:
        return editor.ask(method, textDocument={"uri": path.as_uri()}, position={"line": line, "character": character})

    rule = xopt.ademamix
    shown = ask("textDocument/hover", 2, 8)["contents"]["value"]
    assert "state: AdEMAMixState," in shown
    assert "-> AdEMAMixState" in shown
    for name, default in rule.defaults.items():
        (value,) = re.findall(rf"^    {name}: \w+ = (.*?),?$", shown, re.MULTILINE)
        assert ast.literal_eval(value) == default
        assert f"{name}: {rule.ranges[name].words}. {rule.meanings[name]}" in shown
    assert "state: AdEMAMixState" in ask("textDocument/hover", 1, 2)["contents"]["value"]

    def labels(found: Any) -> list[str]:
        return [item["label"] for item in (found["items"] if isinstance(found, dict) else found)]

    (signature,) = ask("textDocument/signatureHelp", 2, 19)["signatures"]
    assert [part["label"].partition(":")[0] for part in signature["parameters"]] == ["state", "grad", "*", *rule.defaults]
    names = labels(ask("textDocument/completion", 2, 19))
    assert [name for name in names if name.endswith("=")] == ["state=", "grad=", *(f"{name}=" for name in rule.defaults)]
    assert {"ademamix", "ademamix_init", "ademamix_step"} <= {*labels(ask("textDocument/completion", 3, 9))}
