"""The ledger says what is to be done of every row that is not true, and accepts nothing that is wrong."""

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import xopt
from xopt.conformance.ledger.judgement import MANY, judge
from xopt.conformance.ledger.rows import Row, read
from xopt.conformance.results import BROKEN, WRONG, Cell, LawResult
from xopt.conformance.stateful.machine import MACHINE

TODAY = datetime.date(2026, 11, 24)
ROW = Row(
    rules=("adam", "lion"),
    backend="torch",
    device="cpu",
    modes=("eager",),
    dtypes=("float32", "float64"),
    checks=("bits",),
    reason="Square roots.",
    link="https://example.org/1",
    expires=TODAY,
)
TEXT = """
[[row]]
rules = ["adam", "lion"]
backend = "torch"
device = "cpu"
modes = ["eager"]
dtypes = ["float32", "float64"]
checks = ["bits"]
reason = "Square roots."
link = "https://example.org/1"
expires = 2026-11-24
"""


def cell(rule: str, dtype: str, differ: int = 0, trajectories: int = 100, **more: Any) -> Cell:
    return Cell(rule, "torch", "cpu", dtype, "eager", trajectories=trajectories, elements=1000, differ=differ, **more)


def cells(*differ: int, trajectories: int = 100) -> list[Cell]:
    """The four cells of the row, with so many numbers that differ."""
    names = [(rule, dtype) for rule in ROW.rules for dtype in ROW.dtypes]
    return [cell(*name, count, trajectories) for name, count in zip(names, differ, strict=True)]


def law(rule: str, differ: int, name: str = MACHINE, **more: Any) -> LawResult:
    return LawResult(name, rule, "torch", "cpu", "float32", "eager", examples=3, numbers=100, differ=differ, **more)


def judged(results: list[Any], *rows: Row, today: datetime.date = TODAY, machine: str = "x86_64") -> Any:
    found, laws = ([r for r in results if isinstance(r, kind)] for kind in (Cell, LawResult))
    return judge(found, laws, rows, today, machine)


def state(judgement: Any) -> str:
    (verdict,) = judgement.rows
    return verdict.state


def test_a_row_accepts_what_it_names() -> None:
    results = cells(3, 1, 1, 2)
    judgement = judged(results, ROW)
    assert judgement.accepted == results
    assert judgement.problems == []
    (found,) = judgement.to_dict()
    assert found["state"] == "accepted"
    assert found["says"] == "4 of 4 combinations deviate."
    assert found["rules"] == ["adam", "lion"]
    assert found["expires"] == "2026-11-24"


@pytest.mark.parametrize(
    "other",
    [
        {"rules": ("lion",)},
        {"backend": "jax"},
        {"device": "cuda:0"},
        {"modes": ("traced",)},
        {"dtypes": ("float64",)},
        {"checks": (MACHINE,)},
        {"machine": "arm64"},
    ],
)
def test_a_deviation_without_its_row_fails(other: dict[str, Any]) -> None:
    deviation = cell("adam", "float32", 3)
    judgement = judged([deviation], replace(ROW, **other))
    assert judgement.unaccepted == [deviation]
    assert judgement.problems == [
        (
            "adam float32 eager (bits) on torch cpu deviates in 3 of 1,000 numbers, and no row of the ledger accepts it: find out "
            "why, and where the library is the reason, add a row with its link to ledger.toml."
        )
    ]


def test_a_deviation_of_a_rule_that_is_wrong_is_no_librarys() -> None:
    deviation = cell("adam", "float32", 3)
    wrong = law("adam", 0, broken={})
    assert judged([deviation, wrong]).problems == []
    assert judged([deviation, replace(wrong, rule="lion")]).unaccepted == [deviation]
    assert judged([deviation, replace(wrong, device="cuda:0")]).unaccepted == [deviation]


def test_flushed_subnormals_are_a_deviation() -> None:
    flushed = replace(cell("adam", "float32"), differ_subnormal=2)
    assert judged([flushed]).unaccepted == [flushed]
    assert "2 of 1,000" in judged([flushed]).problems[0]


def test_a_row_may_accept_subnormals_alone() -> None:
    row = replace(ROW, only="subnormals")
    flushed = [replace(one, differ=0, differ_subnormal=2) for one in cells(3, 3, 3, 3)]
    assert judged(flushed, row).problems == []
    more = replace(flushed[0], differ=1)
    judgement = judged([more, *flushed[1:]], row)
    assert judgement.unaccepted == [more]
    assert judgement.accepted == flushed[1:]
    assert "deviates in 3 of 1,000 numbers, in 1 of which no subnormal number occurs, and no row" in judgement.problems[0]
    assert judged(cells(3, 1, 1, 1), row).accepted == []
    assert state(judged(cells(0, 0, 0, 0), row)) == "stale"


def test_a_law_within_its_bound_is_a_deviation() -> None:
    assert judged([law("adam", 2)]).unaccepted == [law("adam", 2)]
    assert judged([law("adam", 0)]).problems == []
    row = replace(ROW, rules=("adam",), dtypes=("float32",), checks=(MACHINE,))
    assert judged([law("adam", 2)], row).accepted == [law("adam", 2)]
    assert state(judged([law("adam", 0)], row)) == "stale", "any run of a law can tell"


def test_what_is_wrong_is_never_accepted() -> None:
    wrong, broken = cell("adam", "float32", 3, wrong={"step": 1}), law("adam", 3, broken={"program": ""})
    assert (wrong.verdict, broken.verdict) == (WRONG, BROKEN)
    judgement = judged([wrong, broken, *cells(0, 1, 1, 1)[1:]], replace(ROW, checks=("bits", MACHINE)))
    assert wrong not in judgement.accepted
    assert broken not in judgement.accepted


def test_a_stale_row_fails() -> None:
    judgement = judged(cells(0, 0, 0, 0), ROW)
    assert [verdict.row for verdict in judgement.stale] == [ROW]
    assert judgement.problems == [
        (
            "Nothing deviates any more on torch cpu of adam, lion in float32, float64, eager (bits): delete the row, or find out "
            "why it is quiet."
        )
    ]


@pytest.mark.parametrize(
    "results",
    [
        cells(0, 0, 0, 0, trajectories=99),
        cells(0, 0, 0, 0)[1:],
        [*cells(0, 0, 0, 0)[:3], Cell("lion", "torch", "cpu", "float64", "eager", reason="left out")],
        [*cells(0, 0, 0, 0)[:3], cell("lion", "float64", 1, wrong={"step": 1})],
    ],
    ids=["few trajectories", "a cell less", "a cell that did not run", "a wrong cell"],
)
def test_a_row_is_not_stale_because_a_run_saw_little(results: list[Cell]) -> None:
    judgement = judged(results, ROW)
    assert judgement.problems == []
    assert "too little of it ran to tell. Quiet in this run: adam" in judgement.not_judged[0].says


def test_quiet_combinations_are_named_and_fail_where_a_rule_is_quiet_on_many_inputs() -> None:
    judgement = judged(cells(3, 0, 0, 0), ROW)
    assert judgement.problems == []
    says = "1 of 4 combinations deviate. Quiet in this run: adam, lion in float64, eager (bits); lion in float32, eager (bits)."
    assert judgement.rows[0].says == says
    judgement = judged(cells(3, 0, 0, 0, trajectories=MANY[Cell]), ROW)
    assert judgement.problems == [
        (
            "Nothing deviates on torch cpu of lion in float32, float64, eager (bits): take lion out of the row, or find out why "
            "it is quiet."
        )
    ]
    assert judged(cells(3, 0, 0, 1, trajectories=MANY[Cell]), ROW).problems == [], "a rare deviation beside a common one"


def test_an_expired_row_fails() -> None:
    assert state(judged(cells(3, 1, 1, 2), ROW, today=TODAY)) == "accepted"
    judgement = judged(cells(3, 1, 1, 2), ROW, today=TODAY + datetime.timedelta(1))
    assert [verdict.row for verdict in judgement.expired] == [ROW]
    (problem,) = judgement.problems
    assert "expired on 2026-11-24: look at https://example.org/1 again, and renew the row with another date" in problem


def test_an_unmatched_row_fails() -> None:
    name = "aggmo of one beta is momentum"
    judgement = judged([law("aggmo", 0, name), law("lion", 0, "negation")], replace(ROW, rules=("lion",), checks=(name,)))
    assert len(judgement.unmatched) == 1
    (problem,) = judgement.problems
    assert problem == f"There is no such check on torch cpu: lion in float32, eager ({name}). Take it out of the row of torch cpu."


def test_what_did_not_run_is_not_judged_and_says_why() -> None:
    def says(results: list[Any], **options: Any) -> str:
        judgement = judged(results, replace(ROW, machine="x86_64"), **options)
        assert judgement.problems == []
        return judgement.not_judged[0].says

    assert says([]) == "Nothing of it ran: torch cpu or its rules were left out."
    reason = "this profile leaves compiled steps out"
    assert says([Cell("adam", "torch", "cpu", "float32", "eager", reason)]) == f"Nothing of it ran: {reason}."
    assert says([], today=datetime.date(2030, 1, 1)) == says([]), "nobody can look at it again here"
    assert says(cells(0, 0, 0, 0), machine="arm64") == "It was seen on x86_64; this is arm64."


def written(tmp_path: Path, text: str) -> list[Row]:
    path = tmp_path / "ledger.toml"
    path.write_text(text)
    return read(path)


def test_a_ledger_is_read(tmp_path: Path) -> None:
    assert written(tmp_path, TEXT) == [ROW]
    assert written(tmp_path, TEXT + 'machine = "arm64"\n') == [replace(ROW, machine="arm64")]
    assert written(tmp_path, TEXT + 'only = "subnormals"\n') == [replace(ROW, only="subnormals")]
    assert written(tmp_path, "") == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"adam"', '"ada*"', r"row 1: rules has no 'ada\*'; write each name out, there are sgd, momentum"),
        ('"eager"', '"jit"', "row 1: modes has no 'jit'; write each name out, there are eager, traced"),
        ('"float64"', '"float8"', "row 1: dtypes has no 'float8'"),
        ('"bits"', '"bit"', "row 1: checks has no 'bit'; write each name out, there are bits, any order of operations"),
        ('"torch"', '"tensorflow"', "row 1: there is no backend 'tensorflow'; write one of numpy"),
        ('["eager"]', '"eager"', "row 1: modes must be a list of names that is not empty, got 'eager'"),
        ('["eager"]', "[]", "row 1: modes must be a list of names that is not empty"),
        ('["eager"]', '["eager", "eager"]', "row 1: modes has 'eager' more than once; write it once"),
        ('"Square roots."', '" "', "row 1: reason must be a string that is not empty, got ' '"),
        ('"Square roots."', "3", "row 1: reason must be a string that is not empty, got 3"),
        ("https://example.org/1", "see the issue", "row 1: link must be the https:// address of the issue"),
        ("https://example.org/1", "http://example.org", "row 1: link must be the https:// address of the issue"),
        ("2026-11-24", '"2026-11-24"', "row 1: expires must be a date without quotes such as 2027-11-24"),
        ("2026-11-24", "2026-11-24T10:00:00", "row 1: expires must be a date without quotes"),
        ("expires", "until", "row 1: there is no field 'until'; delete it, the fields are rules, backend"),
        ("expires = 2026-11-24", "", "row 1: the field 'expires' is missing; add it"),
        ("expires", 'only = "zeros"\nexpires', "row 1: only can be 'subnormals', and checks then .'bits'., .*; got 'zeros', "),
        (
            '["bits"]',
            '["negation"]\nonly = "subnormals"',
            "row 1: only can be 'subnormals', and checks then .*got 'subnormals', ",
        ),
        ("[[row]]", "[[deviation]]", r"begin each row with \[\[row\]\]"),
        ("[[row]]", "[row]", r"begin each row with \[\[row\]\]"),
        ('"torch"', "torch", "ledger.toml: .*; mend the TOML"),
        ("2026-11-24", "2026-11-24" + TEXT, r"row 2: adam float32 eager \(bits\) on torch cpu is in row 1 too; take it out"),
    ],
)
def test_a_malformed_ledger_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=complaint) as error:
        written(tmp_path, TEXT.replace(old, new, 1))
    assert str(error.value).startswith(str(tmp_path / "ledger.toml"))


def test_the_ledger_is_in_order() -> None:
    rows = read()
    assert {row.backend for row in rows} == {"torch", "jax", "cupy", "mlx", "mparray", "dpnp"}
    for row in rows:
        roots = [name for name in row.rules if "sqrt" in xopt.RULES[name].elementwise.__code__.co_names]
        if "square root" in row.reason:
            assert list(row.rules) == roots, "only what takes square roots can meet wrong ones"
