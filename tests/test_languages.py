"""Every grammar parses, and finds the definition around a line."""

import pytest

from agentdata.harvest.languages import LANGUAGES, enclosing, language_of, parse

SAMPLES = {
    "python": "import os\n\n\n@decorated\ndef target(a):\n    x = a\n    return x\n",
    "javascript": "let a = 1;\n\n\nexport function target(a) {\n  const x = a;\n\n  return x;\n}\n",
    "typescript": "let a = 1;\n\n\nexport function target(a: number): number {\n  const x = a;\n\n  return x;\n}\n",
    "tsx": "let a = 1;\n\n\nexport function target(a: number) {\n  const x = <b>{a}</b>;\n\n  return x;\n}\n",
    "java": "package a;\n\nclass Outer {\n  int target(int a) {\n    int x = a;\n\n    return x;\n  }\n}\n",
    "go": "package a\n\n\nfunc target(a int) int {\n\tx := a\n\n\treturn x\n}\n",
    "rust": "use std::fmt;\n\n\nfn target(a: i32) -> i32 {\n    let x = a;\n\n    x\n}\n",
    "c": "#include <a.h>\n\n\nstatic int *target(int a) {\n  int x = a;\n\n  return &x;\n}\n",
    "cpp": "#include <a>\n\nnamespace outer {\nint target(int a) {\n  int x = a;\n\n  return x;\n}\n}\n",
    "csharp": "using System;\n\nclass Outer {\n  int target(int a) {\n    int x = a;\n\n    return x;\n  }\n}\n",
    "ruby": "require 'a'\n\nmodule Outer\n  def target(a)\n    x = a\n\n    x\n  end\nend\n",
    "php": "<?php\n\n\nfunction target($a) {\n  $x = $a;\n\n  return $x;\n}\n",
}


def test_there_is_a_sample_of_every_language() -> None:
    assert SAMPLES.keys() == LANGUAGES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sound_file_parses_without_error(name: str) -> None:
    assert not parse(LANGUAGES[name], SAMPLES[name].encode()).root_node.has_error


@pytest.mark.parametrize("name", SAMPLES)
def test_a_broken_file_parses_with_an_error(name: str) -> None:
    assert parse(LANGUAGES[name], SAMPLES[name].encode() + b"\n)) }} {{ ((\n").root_node.has_error


@pytest.mark.parametrize("name", SAMPLES)
def test_the_innermost_definition_around_a_line_is_found(name: str) -> None:
    language = LANGUAGES[name]
    symbols = enclosing(parse(language, SAMPLES[name].encode()), language, 5, 6)
    assert (symbols[0].name, symbols[0].start) == ("target", 4)


@pytest.mark.parametrize("name", ["java", "cpp", "csharp", "ruby"])
def test_outer_definitions_follow(name: str) -> None:
    language = LANGUAGES[name]
    symbols = enclosing(parse(language, SAMPLES[name].encode()), language, 5, 5)
    assert [symbol.name.lower() for symbol in symbols] == ["target", "outer"]


def test_lines_outside_of_definitions_have_none() -> None:
    language = LANGUAGES["python"]
    assert enclosing(parse(language, SAMPLES["python"].encode()), language, 1, 1) == []


def test_lines_beyond_the_end_have_none() -> None:
    language = LANGUAGES["python"]
    assert enclosing(parse(language, b"x = 1\n"), language, 90, 99) == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00", b"\r\n" * 3])
@pytest.mark.parametrize("name", SAMPLES)
def test_any_bytes_can_be_parsed(name: str, content: bytes) -> None:
    assert enclosing(parse(LANGUAGES[name], content), LANGUAGES[name], 1, 1) == []


@pytest.mark.parametrize(("path", "name"), [("a/b.py", "python"), ("B.TSX", "tsx"), ("x.h", "c"), ("y.hpp", "cpp")])
def test_a_language_is_known_by_the_suffix(path: str, name: str) -> None:
    language = language_of(path)
    assert language is not None
    assert language.name == name


@pytest.mark.parametrize("path", ["Makefile", "a.txt", ".py", "py"])
def test_other_paths_have_no_language(path: str) -> None:
    assert language_of(path) is None


def test_no_suffix_belongs_to_two_languages() -> None:
    suffixes = [suffix for language in LANGUAGES.values() for suffix in language.suffixes]
    assert len(suffixes) == len(set(suffixes))
