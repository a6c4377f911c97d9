"""Licence files to SPDX expressions."""

from pathlib import Path

import pytest

from agentdata.harvest.licences import combine, detect, is_allowed, is_licence_file

MIT = """MIT License

Copyright (c) 2020 Ada Author

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
APACHE = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [b"LICENSE", b"LICENCE.txt", b"License.md", b"COPYING", b"UNLICENSE", b"LICENSE-MIT", b"copyright"]
)
def test_a_licence_file_is_known_by_its_name(name: bytes) -> None:
    assert is_licence_file(name)


@pytest.mark.parametrize("name", [b"license.py", b"README.md", b"LICENSES", b"license.json", b"my-license"])
def test_another_file_is_no_licence(name: bytes) -> None:
    assert not is_licence_file(name)


def test_mit_is_recognised() -> None:
    assert detect(MIT) == "MIT"


def test_apache_is_recognised() -> None:
    assert detect(APACHE) == "Apache-2.0"


@pytest.mark.parametrize("text", ["", "All rights reserved. Nobody may copy this.", "x" * 200_001])
def test_what_is_no_licence_gives_an_empty_expression(text: str) -> None:
    assert detect(text) == ""


def test_several_files_apply_together() -> None:
    assert combine(["MIT", "", "Apache-2.0 AND MIT"]) == "Apache-2.0 AND MIT"


@pytest.mark.parametrize(
    ("expression", "allowed", "expected"),
    [
        ("MIT", ("MIT",), True),
        ("Apache-2.0 AND MIT", ("MIT",), False),
        ("Apache-2.0 AND MIT", ("MIT", "Apache-2.0"), True),
        ("", ("MIT",), False),
        ("", (), True),
        ("GPL-3.0-only", (), True),
    ],
)
def test_every_part_must_be_allowed(expression: str, allowed: tuple[str, ...], expected: bool) -> None:
    assert is_allowed(expression, allowed) is expected
