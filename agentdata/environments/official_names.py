"""pytest node ids to the names that the official parsers give the same tests.

One parser of pytest keeps spaces, but takes runs of them for one and loses what looks like a colour. The other cuts a
name at its first space, so that `test[a b]` and `test[a c]` both become `test[a`, and the last one in the log decides. A
name that could mean two of the tests that are known to run is not used.
"""

from collections import Counter
from dataclasses import dataclass

from agentdata.environments.log_parsers import FIRST_WORD, WHOLE_LINE, official_name
from agentdata.environments.row_fields import RowError
from agentdata.records import TaskTests


@dataclass(frozen=True, slots=True)
class OfficialTests:
    """A task's tests under the names of a parser."""

    parser: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    kept: TaskTests
    """The same tests under their node ids: what both graders can see."""
    dropped: tuple[str, ...] = ()
    """Node ids of the tests that the parser cannot tell from others."""


def name_officially(tests: TaskTests) -> OfficialTests:
    """The tests under the names of the parser that keeps the most, above all of what must turn to pass.

    Raises RowError when no fail-to-pass test keeps a name of its own.
    """
    choices = [_named(tests, parser) for parser in (WHOLE_LINE, FIRST_WORD)]
    best = max(choices, key=lambda choice: (len(choice.fail_to_pass), len(choice.pass_to_pass)))
    if not best.fail_to_pass:
        raise RowError("names-collide", f"no official parser can tell {tests.fail_to_pass[:1]} from other tests")
    return best


def _named(tests: TaskTests, parser: str) -> OfficialTests:
    known = dict.fromkeys([*tests.fail_to_pass, *tests.pass_to_pass, *tests.flaky])
    known.update(dict.fromkeys(count.name for count in tests.counts))
    names = {test: official_name(parser, test) for test in known}
    uses = Counter(names.values())

    def survives(test: str) -> bool:
        return bool(names[test]) and uses[names[test]] == 1

    fail_to_pass = tuple(filter(survives, tests.fail_to_pass))
    pass_to_pass = tuple(filter(survives, tests.pass_to_pass))
    kept = tests.model_copy(update={"fail_to_pass": fail_to_pass, "pass_to_pass": pass_to_pass})
    both = [*tests.fail_to_pass, *tests.pass_to_pass]
    return OfficialTests(
        parser=parser,
        fail_to_pass=tuple(names[test] for test in fail_to_pass),
        pass_to_pass=tuple(names[test] for test in pass_to_pass),
        kept=kept,
        dropped=tuple(test for test in both if not survives(test)),
    )
