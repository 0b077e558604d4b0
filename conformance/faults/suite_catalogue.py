"""Faults in the suite itself: what would make it pass what is wrong, or say less than it seems to.

Each is an edit of a file of the suite, and names the part of the self-check that sees it.
"""

from xopt.conformance.faults.fault import Edit, SuiteFault


def _in(file: str, check: str, *faults: tuple[str, str, str]) -> list[SuiteFault]:
    """Of one file and one check: what then happens, the old text and the new one."""
    return [SuiteFault(name, check.replace("_", " "), (Edit(file, old, new),)) for name, old, new in faults]


SUITE_FAULTS: list[SuiteFault] = [
    # Bounds.
    *_in(
        "arithmetic/bounded.py",
        "the_bound_is_the_one_worked_out_by_hand",
        ("all bounds are four times as large", "return error * (1.0 + 2.0**-30)", "return 4.0 * error * (1.0 + 2.0**-30)"),
        (
            "a product that meets an error loses it",
            "return _result(a.value * b.value, error, None",
            "return _result(a.value * b.value, 0.0, None",
        ),
        ("a sum adds its errors twice", "(a.value + b.value, a.error + b.error,", "(a.value + b.value, 2.0 * (a.error + b.error),"),
    ),
    *_in(
        "arithmetic/formats.py",
        "the_bound_is_the_one_worked_out_by_hand",
        ("a rounding is a whole unit", "* 2 * max(0.5,", "* 2 * max(1.0,"),
    ),
    *_in(
        "arithmetic/bounded.py",
        "operations_carry_one_rounding_each",
        ("a quotient forgets how near its divisor is to 0", "room = np.abs(b.value) - b.error", "room = np.abs(b.value)"),
        ("a root has twice the error", "np.maximum(below, above) + root", "2 * np.maximum(below, above) + root"),
        ("a root looks below alone", "np.maximum(below, above) + root", "below + root"),
        (
            "what a format flushes has no error",
            "np.where(small, size, 0.0)[()] if to.flushes",
            "np.where(small, 0.0, 0.0)[()] if to.flushes",
        ),
        ("storage rounds twice", "error=self.error + rounding, may", "error=self.error + 2 * rounding, may"),
        ("the larger of two numbers has both errors", "np.maximum(x.error, y.error)))", "x.error + y.error))"),
    ),
    *_in(
        "arithmetic/formats.py",
        "operations_carry_one_rounding_each",
        ("a measured error counts ten times", "self.ulps.get(primitive, 0.5))", "10 * self.ulps.get(primitive, 0.05))"),
    ),
    *_in(
        "arithmetic/bounded.py",
        "signs_are_open_only_near_zero",
        ("signs are open far from 0", "is_open = (np.abs(x.value) <= x.error)", "is_open = (np.abs(x.value) <= 100 * x.error)"),
        ("signs are always open", "(np.abs(x.value) <= x.error) & (x.error > 0)", "np.full(np.shape(x.value), True)"),
        ("no sign is open", "(np.abs(x.value) <= x.error) & (x.error > 0)", "np.full(np.shape(x.value), False)"),
    ),
    *_in(
        "arithmetic/bounded.py",
        "bits_are_compared_everywhere",
        ("what has no bound is never subnormal", "known = size if np.all(size < np.inf) else", "known = size if True else"),
    ),
    *_in(
        "arithmetic/formats.py",
        "formats_are_those_of_ieee",
        ("float32 has a digit less", 'FloatFormat("float32", 24,', 'FloatFormat("float32", 23,'),
        ("bfloat16 has two digits less", 'FloatFormat("bfloat16", 8,', 'FloatFormat("bfloat16", 6,'),
    ),
    # The comparison.
    *_in(
        "compare/reference.py",
        "the_bound_is_the_one_worked_out_by_hand",
        ("the bounds of rule and golden add up", "np.maximum(ours.error, paper.error) + own", "ours.error + paper.error + own"),
    ),
    *_in(
        "compare/reference.py",
        "what_is_no_number_is_wrong",
        (
            "NaN has no error",
            "ratio = np.where(np.isnan(self.error), np.inf, ratio)",
            "ratio = np.where(np.isnan(self.error), 0.0, ratio)",
        ),
        (
            "NaN is right where there is no bound",
            "if any(np.any(np.isnan(c.error) & ~np.isfinite(c.bound)) for c in comparisons):",
            "if not comparisons:",
        ),
        ("infinity is always right", "special = (np.isnan(after)", "special = np.isinf(after) | (np.isnan(after)"),
        ("infinity has the sign of the truth", "(np.sign(after) * near +", "(np.sign(after) == np.sign(near)) & (np.abs(near) +"),
        ("infinity has any sign", "(np.sign(after) * near +", "(np.abs(near) +"),
        ("NaN is always right", "(np.isnan(after) & np.isnan(near))", "np.isnan(after)"),
    ),
    *_in(
        "compare/reference.py",
        "truth_is_the_goldens",
        ("truth and bound have the same text", "return ours, paper, truth", "return ours, paper, ours"),
        (
            "the golden has the rule's defaults",
            "lift(self.truth_in, self.golden.defaults | hyper)",
            "lift(self.truth_in, rule.defaults | hyper)",
        ),
        ("another golden is never asked", "self.golden = golden or GOLDENS[rule.name]", "self.golden = GOLDENS[rule.name]"),
        (
            "the truth of float64 is in float64",
            "_Vectors() if compute.unit == HOST.unit else",
            "_Vectors() if compute.unit < HOST.unit else",
        ),
    ),
    *_in(
        "compare/reference.py",
        "each_step_and_the_whole_are_compared",
        (
            "only the parameters are compared",
            "                    yield _comparison(name, to, *part)",
            "                    yield _comparison(name, to, *part)\n            return",
        ),
    ),
    *_in(
        "compare/comparison.py",
        "up_to_the_bound_is_right_and_beyond_it_is_wrong",
        ("only four times the bound is wrong", "if largest > 1 and self.wrong is None:", "if largest > 4 and self.wrong is None:"),
        ("only a hundred bounds are wrong", "if largest > 1 and self.wrong is None:", "if largest > 100 and self.wrong is None:"),
        (
            "nothing is wrong",
            "            if own.wrong is not None:\n                return",
            "            if False:\n                return",
        ),
        ("every second cell is compared", "for subject in self.subjects:", "for subject in self.subjects[::2]:"),
        ("NumPy's comparison stands for all", "if not (same and subject.plain):", "if not subject.plain:"),
        ("bits that differ are not counted", "cell.differ += int(np.sum(mask & ~excused))", "cell.differ += 0"),
    ),
    *_in(
        "results.py",
        "up_to_the_bound_is_right_and_beyond_it_is_wrong",
        ("what is wrong is noted and forgotten", "        self.wrong = details", "        self.worst = details"),
    ),
    *_in(
        "inputs/explore.py",
        "up_to_the_bound_is_right_and_beyond_it_is_wrong",
        (
            "one wrong cell ends the others",
            "            for one in checked:\n                one.result.reset()\n        else:",
            "            break\n        else:",
        ),
    ),
    *_in(
        "compare/comparison.py",
        "one_number_is_enough",
        (
            "the mean of a column is judged",
            "largest = float(np.max(np.nan_to_num(ratio), initial=0.0))",
            "largest = float(np.mean(np.nan_to_num(ratio)))",
        ),
        (
            "the last number is left out",
            "largest = float(np.max(np.nan_to_num(ratio), initial=0.0))",
            "largest = float(np.max(np.nan_to_num(ratio)[:-1], initial=0.0))",
        ),
        (
            "all bits count where one differs",
            "masks.append((a != b) & ~(np.isnan(a) & np.isnan(b)))",
            "masks.append(np.full(np.shape(a), np.any(a != b)))",
        ),
    ),
    *_in(
        "compare/comparison.py",
        "each_step_and_the_whole_are_compared",
        (
            "only first steps are compared",
            "results.append((local.step(grad, t, after), whole.step(grad, t, after)))",
            "local.step(grad, t, after)",
        ),
        ("a trajectory starts anew at each step", "local.restart(before)", "local.restart(before), whole.restart(before)"),
    ),
    *_in(
        "compare/comparison.py",
        "what_is_no_number_is_wrong",
        (
            "infinite ratios are ignored",
            "largest = float(np.max(np.nan_to_num(ratio), initial=0.0))",
            "largest = float(np.max(ratio[np.isfinite(ratio)], initial=0.0))",
        ),
    ),
    *_in(
        "compare/comparison.py",
        "bits_are_compared_everywhere",
        ("a number beside NaN is the same", "& ~(np.isnan(a) & np.isnan(b))", "& ~(np.isnan(a) | np.isnan(b))"),
        ("bits are compared up to a millionth", "masks.append((a != b) &", "masks.append((abs(a - b) > 1e-6 * abs(a)) &"),
        ("of a slot of several arrays the first is compared", "masks += _differ(a, b)", "masks += _differ(a[:1], b[:1])"),
        (
            "what is subnormal counts as other bits",
            "cell.differ_subnormal += int(np.sum(mask & excused))",
            "cell.differ += int(np.sum(mask & excused))",
        ),
    ),
    *_in(
        "compare/comparison.py",
        "what_raises_is_wrong_and_the_others_go_on",
        ("exceptions are swallowed", "                wrong = raised(error, self.shapes, pieces)", "                wrong = None"),
    ),
    *_in(
        "inputs/explore.py",
        "what_is_right_has_the_verdict_of_what_is_right",
        (
            "half of the examples are drawn",
            "max_examples=effort.examples, phases",
            "max_examples=effort.examples // 2, phases",
        ),
    ),
    *_in(
        "compare/candidate.py",
        "bits_are_compared_everywhere",
        (
            "the state is read before the step",
            "            self.step(grad)\n            for part, own",
            "            for part, own",
        ),
    ),
    # What is drawn.
    *_in(
        "compare/comparison.py",
        "what_must_be_drawn_is_drawn",
        ("no gradient cancels", "if not self.rule.memory or not np.any(cancels):", "if True:"),
        ("numbers compared are not counted", 'saw(f"{self.name}: numbers compared",', 'saw("numbers",'),
    ),
    *_in(
        "inputs/hyperparameters.py",
        "what_must_be_drawn_is_drawn",
        ("no decay is 0", "return draw.choice((0.0, common,", "return draw.choice((0.5, common,"),
    ),
    *_in(
        "inputs/trajectories.py",
        "what_must_be_drawn_is_drawn",
        ("examples begin at 0", "steps_before = count(choices, own_counts(rule, hyper))", "steps_before = 0"),
        ("an example's setting is always 0", "        hyper = pool[setting]", "        hyper = pool[0]"),
        ("all examples have one step", "steps = 1 + choices.below(longest)", "steps = 1"),
        ("nothing is to cancel", "[g & 7 == 7 for g in grads]", "[g & 7 == 9 for g in grads]"),
        ("there are no groups", '    if kind == "one":', "    if True:"),
        (
            "counts have 16 bits",
            "            steps_before,\n            parts,",
            "            steps_before % 65536,\n            parts,",
        ),
    ),
    *_in(
        "inputs/words.py",
        "what_must_be_drawn_is_drawn",
        ("no gradient is 0", "np.where(kind == 0, 0.0, sign", "np.where(kind == 9, 0.0, sign"),
    ),
    *_in(
        "inputs/words.py",
        "generated_numbers_are_of_all_kinds",
        ("gradients are never far from 1", "wide = (words >> 4 & 1).astype(bool)", "wide = (words >> 4 & 1) > 1"),
        ("all numbers are positive", "sign = np.where(words >> 3 & 1, -1.0, 1.0)", "sign = np.where(words >> 3 & 1, 1.0, 1.0)"),
        ("all numbers are powers of two", "np.where(kind == 1, 1.0,", "np.where(kind >= 0, 1.0,"),
    ),
    *_in(
        "arithmetic/formats.py",
        "generated_numbers_are_of_all_kinds",
        ("rounding cuts off", "return np.asarray(x).astype(dtype).astype(np.float64)", "return np.asarray(x).astype(np.float64)"),
    ),
    *_in(
        "inputs/census.py",
        "a_floor_fails_what_is_below_it",
        ("no floor is reached for", "if self.count >= self.floor:", "if True:"),
        (
            "floors are a tenth",
            "least = math.floor(share * counts.get(of, 0))",
            "least = math.floor(0.1 * share * counts.get(of, 0))",
        ),
    ),
    *_in(
        "inputs/census.py",
        "what_must_be_drawn_is_drawn",
        ("nothing is counted", "_counts[what] += int(times)", "_counts[what] += 0"),
        ("options are not looked at", "for option, test in OPTIONS[kind].items():", "for option, test in {}.items():"),
    ),
    # Laws.
    *_in(
        "laws/lab.py",
        "a_law_holds_up_to_its_bound_and_no_farther",
        ("only four times the bound breaks a law", "        if largest > 1:\n", "        if largest > 4:\n"),
        (
            "nothing breaks a law",
            "            raise BrokenError(_details(at, x[at], y[at], distance[at], bound[at]) | many)",
            "            return",
        ),
        ("what must fail need not be seen", "        if not ratio[at] > 1:\n", "        if False:\n"),
        (
            "other bits are excused",
            "            self._compare(np.where(differ, _distance(x, y), 0.0), bound, x, y)",
            "            return",
        ),
        ("other bits are not counted", "self.result.differ += int(np.sum(differ))", "self.result.differ += 0"),
    ),
    *_in(
        "laws/lab.py",
        "a_law_compares_all_that_it_counts",
        (
            "numbers are counted and not compared",
            "        self._compare(_distance(x, y), bound, x, y)\n\n    def at_most",
            "\n    def at_most",
        ),
        ("a limit is no limit", "excess = np.where(x <= y, 0.0, _distance(x, y))", "excess = np.where(x <= y, 0.0, 0.0)"),
        ("NaN is near to all", "np.where(np.isnan(x) | np.isnan(y), math.inf,", "np.where(np.isnan(x) | np.isnan(y), 0.0,"),
        ("what does not hold is not said", "        if not truth:\n", "        if truth is None:\n"),
    ),
    *_in(
        "laws/lab.py",
        "laws_run_on_all_settings",
        ("laws have one setting", 'self.pool[0 if self.mode == "traced" else case.setting]', "self.pool[0]"),
    ),
    *_in(
        "results.py",
        "a_law_compares_all_that_it_counts",
        ("a broken law is not noted", "        self.broken = details", "        self.reason = None"),
    ),
    *_in(
        "laws/check.py",
        "a_law_compares_all_that_it_counts",
        (
            "a law that raises holds",
            'else {"raised": brief(error), "traceback": traceback_of(error)}\n        return None',
            "else None\n        return None",
        ),
    ),
    *_in(
        "inputs/explore.py",
        "laws_run_on_all_settings",
        ("a law has one example", "max_examples=effort.examples, phases", "max_examples=1, phases"),
    ),
    # The state machine.
    *_in(
        "stateful/machine.py",
        "the_machine_sees_two_bounds",
        ("a hundred bounds for the machine", "if ratio[at] > 1:", "if ratio[at] > 100:"),
        ("the machine does not ask the golden", "        self._follows(grad, after)\n", ""),
        (
            "the machine looks at the parameters alone",
            "for comparison in reference.step(grad, self.t, after):",
            "for comparison in reference.step(grad, self.t, after)[:1]:",
        ),
    ),
    *_in(
        "stateful/machine.py",
        "the_machine_sees_what_only_an_odd_order_shows",
        (
            "the machine never loads",
            "        host = self.main.host()\n        self.main.load(pickle",
            "        return\n        host = self.main.host()\n        self.main.load(pickle",
        ),
        ("the machine does not count", "if int(self.main.state.step) != self.t:", "if False:"),
    ),
    *_in(
        "stateful/tracked.py",
        "the_machine_sees_what_only_an_odd_order_shows",
        ("the machine lets a step write to its state", "        if np.any(differ(self.flat(), before)):", "        if False:"),
        (
            "the machine lets a step write to its gradient",
            "        if np.any(self._column(self.spec.flatten_up_to(given), 0) != grad):",
            "        if False:",
        ),
    ),
    *_in(
        "stateful/machine.py",
        "programs_do_what_they_can",
        (
            "the machine never moves",
            "backend, self.format = self.setup.places[1 - here]",
            "backend, self.format = self.setup.places[here]",
        ),
        (
            "the machine has nowhere to move",
            "@stateful.precondition(lambda self: len(self.setup.places) > 1)",
            "@stateful.precondition(lambda self: len(self.setup.places) > 2)",
        ),
        ("the machine never splits", "len(self.main.parts) < len(KEYS)", "len(self.main.parts) < 1"),
        ("the machine never steps", "                for grad in grads:\n", "                for grad in []:\n"),
        ("copies are not followed", "self.left = copy.copy(self.main)", "self.left = None"),
    ),
    # The replay.
    *_in(
        "training/replay.py",
        "a_replay_compares_and_may_be_wrong",
        ("wrong replays are no problem", "cell.wrong = error.details", "cell.worst = error.details"),
        ("the replay compares nothing", '[subject], data.SHAPES, "digits")', '[], data.SHAPES, "digits")'),
        (
            "the replay has one gradient",
            "data.start(), recorded.grads, [np.False_] * steps)",
            "data.start(), recorded.grads[:1], [np.False_])",
        ),
        ("a replay's verdict is that it is right", 'return str(self.replayed["verdict"])', 'return "bit-identical"'),
    ),
    # Verdicts and reports.
    *_in(
        "results.py",
        "verdicts_follow_from_what_was_found",
        ("what compared nothing is right", "        if self.elements == 0:\n", "        if self.elements < 0:\n"),
        ("a law that compared nothing holds", "        if self.numbers == 0:\n", "        if self.numbers < 0:\n"),
        ("other bits are the same", "        if self.differ:\n", "        if self.differ > 9:\n"),
        ("a broken law that names nothing holds", "if self.broken is not None:", "if self.broken:"),
    ),
    *_in(
        "report/report.py",
        "what_is_wrong_fails_the_run",
        ("a broken law does not fail the run", "if result.verdict in (WRONG, BROKEN)]", "if result.verdict == WRONG]"),
        ("a wrong replay does not fail the run", "[*self.cells, *self.laws, *self.replays]", "[*self.cells, *self.laws]"),
        (
            "what compared nothing needs no reason",
            "if r.verdict == NOT_RUN and r.reason is None",
            "if r.verdict == NOT_RUN and r.reason",
        ),
        ("the ledger does not fail the run", "+ silent + scarce + self.ledger.problems", "+ silent + scarce"),
        ("too few do not fail the run", "+ silent + scarce + self.ledger.problems", "+ silent + self.ledger.problems"),
        ("a check that failed does not fail the run", "return self.failures + self._unchecked", "return self._unchecked"),
        ("nothing checked is a pass", "        if not ran:\n", "        if False:\n"),
        ("what was asked for may be missing", 'self.about.get("asked", {}).items()', "{}.items()"),
        ("a cell may rest on few examples", "r.examples < plan.asked(r)", "r.examples < 1"),
    ),
    *_in(
        "ledger/rows.py",
        "what_is_wrong_fails_the_run",
        (
            "a row is of every rule",
            "return (Combination(*names) for names in product(self.rules,",
            "return (Combination(*names) for names in product(RULES,",
        ),
        (
            "a row is of every dtype",
            "product(self.rules, self.dtypes, self.modes, self.checks)",
            "product(self.rules, DTYPES, self.modes, self.checks)",
        ),
    ),
    *_in(
        "ledger/judgement.py",
        "what_is_wrong_fails_the_run",
        ("a row is of every machine", "if row.machine in (None, machine):", "if True:"),
        (
            "a row is of every device",
            "covered.get((*place, combination))",
            '{(b, "cpu", c): row for (b, _, c), row in covered.items()}.get((place[0], "cpu", combination))',
        ),
        ("a row of subnormals accepts more", "by.only is None or result.verdict == SUBNORMALS", "True"),
        ("a row never expires", "    if today > row.expires:", "    if False:"),
        ("a row is never stale", "if verdict.state in (STALE, EXPIRED, UNMATCHED)]", "if verdict.state in (EXPIRED, UNMATCHED)]"),
        (
            "no law deviates",
            "return result.verdict in (WITHIN, SUBNORMALS)",
            "return isinstance(result, Cell) and result.verdict in (WITHIN, SUBNORMALS)",
        ),
        ("a flush is no deviation", "return result.verdict in (WITHIN, SUBNORMALS)", "return result.verdict == WITHIN"),
        ("what no row accepts is no problem", "return [*map(_unaccepted, self.unaccepted), *rows]", "return rows"),
    ),
    *_in(
        "cli/conform.py",
        "what_fails_the_run_is_shown",
        (
            "the command exits with 0",
            "raise typer.Exit(1 if report.problems or survivors else 0)",
            "raise typer.Exit(1 if survivors else 0)",
        ),
    ),
    *_in(
        "report/vocabulary.py",
        "what_fails_the_run_is_shown",
        ("a table shows what is wrong as right", 'WRONG: Word("WRONG"', 'WRONG: Word("bits"'),
        ("a table rounds the ratio", "math.floor(100 * value) / 100", "round(value, 2)"),
    ),
    *_in(
        "report/text.py",
        "what_fails_the_run_is_shown",
        ("broken laws are not counted", "    if counts[BROKEN]:\n", "    if False:\n"),
    ),
    *_in(
        "report/html.py",
        "what_fails_the_run_is_shown",
        ("the page passes over problems", "bad = _other_problems(report) or", "bad ="),
    ),
    *_in(
        "report/junit.py",
        "what_fails_the_run_is_shown",
        ("the XML passes over problems", '    if report["problems"]:\n', "    if False:\n"),
    ),
]
