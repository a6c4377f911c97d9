"""Run unittest on files and write a JUnit XML report. Shipped into sandboxes: needs nothing but Python 3.6 or later."""

import os
import sys
import traceback
import unittest
import xml.etree.ElementTree as ElementTree


class Recorder(unittest.TextTestResult):
    """Keeps a case for every test and subtest."""

    def __init__(self, stream: object, descriptions: bool, verbosity: int, **options: object) -> None:
        super().__init__(stream, descriptions, verbosity, **options)  # type: ignore[arg-type]
        self.cases: list = []  # type: ignore[type-arg]

    def keep(self, test: object, tag: str = "", error: object = None, kind: str = "") -> None:
        """Remember what became of a test; `error` is a text or what `sys.exc_info` gives."""
        if isinstance(error, tuple):
            error = "".join(traceback.format_exception(*error))
        self.cases.append((getattr(test, "test_case", test), tag, error or "", kind))

    def addSuccess(self, test: object) -> None:  # noqa: N802
        super().addSuccess(test)  # type: ignore[arg-type]
        self.keep(test)

    def addError(self, test: object, err: object) -> None:  # noqa: N802
        super().addError(test, err)  # type: ignore[arg-type]
        self.keep(test, "error", err)

    def addFailure(self, test: object, err: object) -> None:  # noqa: N802
        super().addFailure(test, err)  # type: ignore[arg-type]
        self.keep(test, "failure", err)

    def addSkip(self, test: object, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)  # type: ignore[arg-type]
        self.keep(test, "skipped", reason, "unittest.skip")

    def addExpectedFailure(self, test: object, err: object) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)  # type: ignore[arg-type]
        self.keep(test, "skipped", err, "pytest.xfail")

    def addUnexpectedSuccess(self, test: object) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)  # type: ignore[arg-type]
        self.keep(test, "failure", "unexpected success")

    def addSubTest(self, test: object, subtest: object, err: object) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)  # type: ignore[arg-type]
        if isinstance(err, tuple):
            self.keep(test, "failure" if issubclass(err[0], AssertionError) else "error", err)


def element(test: unittest.TestCase, tag: str, text: str, kind: str) -> ElementTree.Element:
    """One case. A module or class that could not be set up stands under its own name."""
    owner = type(test)
    if owner.__module__.startswith("unittest."):
        name = test.id().split(" ")[-1].strip("()").replace("unittest.loader._FailedTest.", "")
        case = ElementTree.Element("testcase", classname="", name=name, time="0")
    else:
        classname = owner.__module__ + "." + owner.__qualname__
        case = ElementTree.Element("testcase", classname=classname, name=test.id().split(".")[-1], time="0")
    if tag:
        child = ElementTree.SubElement(case, tag, message=text.strip().split("\n")[-1][:500], type=kind)
        child.text = "".join(letter for letter in text if letter in "\t\n" or letter >= " ")
    return case


def main(report: str, files: list) -> int:  # type: ignore[type-arg]
    """Run the tests of files, write the report, and return the exit status."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    modules = [path.split("::")[0][: -len(".py")].replace("/", ".") for path in files]
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    result = unittest.TextTestRunner(resultclass=Recorder, verbosity=2).run(suite)
    root = ElementTree.Element("testsuite", name="unittest")
    root.extend([element(*case) for case in getattr(result, "cases", [])])
    with open(report, "wb") as file:
        file.write(ElementTree.tostring(root))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split("=", 1)[1], sys.argv[2:]))
