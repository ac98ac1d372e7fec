"""Lines of `.env`, `env_file` and `label_file`: the examples of the specification, and hostile files."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.sources.compose.env_file import EnvFileError, parse_env_file

ENV = {"OTHER": "other", "EMPTY": ""}


def parsed(text: str, **env: str) -> dict[str, str | None]:
    return parse_env_file(text, {**ENV, **env})[0]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        # "Env_file format" of the specification
        ("VAR=VAL", "VAL"),
        ('VAR="VAL"', "VAL"),
        ("VAR='VAL'", "VAL"),
        ("VAR=VAL # comment", "VAL"),
        ("VAR=VAL# not a comment", "VAL# not a comment"),
        ('VAR="VAL # not a comment"', "VAL # not a comment"),
        ('VAR="VAL" # comment', "VAL"),
        ("VAR='$OTHER'", "$OTHER"),
        ("VAR='${OTHER}'", "${OTHER}"),
        (r"VAR='Let\'s go!'", "Let's go!"),
        (r'VAR="{\"hello\": \"json\"}"', '{"hello": "json"}'),
        (r'VAR="some\tvalue"', "some\tvalue"),
        (r"VAR='some\tvalue'", r"some\tvalue"),
        (r"VAR=some\tvalue", r"some\tvalue"),
        ("VAR=", ""),
        ("VAR", None),
        # other forms
        ("OTHER", "other"),
        ("VAR: VAL", "VAL"),
        ("VAR = VAL ", "VAL"),
        ("export VAR=VAL", "VAL"),
        ("export\tVAR=VAL", "VAL"),
        ("export=1", "1"),
        ("VAR=VAL\r", "VAL"),
        ("VAR=a=b:c", "a=b:c"),
        ("VAR=#x", "#x"),
        ("VAR='one\ntwo'", "one\ntwo"),
        (r'VAR="a\\b\$OTHER"', r"a\b$OTHER"),
        ("VAR=$$OTHER", "$OTHER"),
        ("VAR=$OTHER-${OTHER}", "other-other"),
        ("VAR=${NONE:-${OTHER}}", "other"),
        ("VAR=${EMPTY:-x}${EMPTY-y}", "x"),
        ("VAR=${OTHER:+x}${NONE+y}", "x"),
        ('VAR="$OTHER"', "other"),
        ("VAR=$NONE.", "."),
        ("VAR=Ünï", "Ünï"),
    ],
)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n# last"])
def test_a_line_has_the_value_that_the_specification_says(line: str, value: str | None, ending: str) -> None:
    assert list(parsed(f"# first\n\n{line}{ending}").values()) == [value]


def test_values_use_earlier_ones_but_the_environment_goes_before() -> None:
    text = "A=1\nB=$A-$OTHER\nOTHER=file\nC=$OTHER\nA=2\nD=$A"
    assert parsed(text) == {"A": "2", "B": "1-other", "OTHER": "file", "C": "other", "D": "2"}


def test_lines_are_counted_over_comments_and_quoted_values() -> None:
    _, lines = parse_env_file("# c\nA='x\ny'\n\n  B: 1\nC", {})
    assert lines == {"A": 2, "B": 5, "C": 6}


def test_a_raw_file_is_taken_as_it_is() -> None:
    assert parse_env_file('A="x" $OTHER # y\nB=\'\n', ENV, raw=True)[0] == {"A": '"x" $OTHER # y', "B": "'"}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("A=1\nB C=2", 2, "not NAME=VALUE"),
        ("=1", 1, "not NAME=VALUE"),
        ("A/B=1", 1, "not NAME=VALUE"),
        ('A="secret', 1, "the quoted value of A has no end"),
        ("\nA=${B:?secret}", 2, "the value of A: variable B is required"),
        ("A=${", 1, "the value of A: a ${ is not closed"),
        ("A=" + "x" * 1000 + "".join(f"\nA=$A$A # {n}" for n in range(40)), 14, "more than 8388608 characters"),
        ("\n".join(f"A{n}=" for n in range(20_001)), 20_001, "more than 20000 variables"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_cannot_be_parsed_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(EnvFileError) as caught:
        parse_env_file(text, {})
    assert (caught.value.line, reason in caught.value.reason) == (line, True), caught.value.reason
    assert caught.value.remedy


@given(st.lists(st.sampled_from([*"AB=:'\"\\$ {}#\n\r-?+", "export "])).map("".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(EnvFileError):
        values, lines = parse_env_file(text, {"A": "x"})
        assert values.keys() == lines.keys()
        assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text()), st.booleans())
def test_quoted_values_survive_a_round_trip(values: dict[str, str], single: bool) -> None:
    def written(value: str) -> str:
        value = value.replace("\r\n", "\n")
        if single:
            return "'" + value.replace("'", "\\'") + "'"
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'

    usable = {name: value for name, value in values.items() if not (single and "\\" in value)}
    text = "\n".join(f"{name}={written(value)}" for name, value in usable.items())
    assert parse_env_file(text, {})[0] == {name: value.replace("\r\n", "\n") for name, value in usable.items()}
