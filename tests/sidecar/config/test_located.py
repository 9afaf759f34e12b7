"""YAML with lines: where a field stands, and which texts are refused, with the line."""

import pytest

from llmroute_sidecar.config.located import MAX_DEPTH, MAX_NODES, BadYaml, read_yaml

ROUTE = """\
# a comment
apiVersion: llmroute.dev/v1alpha1
kind: LLMRoute
metadata:
  name: chat
  labels: {app.kubernetes.io/name: chat}
spec:
  auth: {mode: None}
  upstreams:
    - name: a
      url: mock://local
      headers:
        x-team.name: shop
    -
      name: b
      url: >-
        mock://fail
  models:
  - name: m
    targets: [{upstream: a},
      {upstream: b}]
    fallbacks:
    - other
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("", 2),
        ("kind", 3),
        ("metadata", 4),
        ("metadata.name", 5),
        ("metadata.labels.app.kubernetes.io/name", 6),
        ("metadata.namespace", 4),  # not there: the line of what would hold it
        ("spec", 7),
        ("spec.gateway", 7),
        ("spec.auth.mode", 8),
        ("spec.upstreams", 9),
        ("spec.upstreams[0]", 10),
        ("spec.upstreams[0].name", 10),
        ("spec.upstreams[0].url", 11),
        ("spec.upstreams[0].headers.x-team.name", 13),
        ("spec.upstreams[0].headers.x-team.name.[key]", 13),
        ("spec.upstreams[1].name", 15),
        ("spec.upstreams[1].url", 16),
        ("spec.upstreams[7].url", 9),
        ("spec.models[0].targets[0].upstream", 20),
        ("spec.models[0].targets[1].upstream", 21),
        ("spec.models[0].fallbacks[0]", 23),
        ("spec.limits[0].name", 7),
    ],
)
def test_a_field_is_found_on_its_line(field: str, line: int) -> None:
    (document,) = read_yaml(ROUTE)
    assert document.line_of(field) == line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),  # a time stays a text, as in JSON
        ("2027-01-01", "2027-01-01"),
        ("1:30", "1:30"),  # not base 60
        ("12", 12),
        ("0x1F", 31),
        ("010", 8),
        ("-3", -3),
        ("1_000", 1000),
        ("0.1", 0.1),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("'12'", "12"),
        ('"yes"', "yes"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("''", ""),
        ("None", "None"),  # an auth mode, not YAML's null
        ("2xx", "2xx"),
    ],
)
def test_a_scalar_is_read_as_kubectl_reads_it(text: str, value: object) -> None:
    (document,) = read_yaml(f"a: {text}")
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands here already, on line 1"),
        ("x:\n  a: 1\n  a: 1\n", 3, "stands here already"),
        ("a: [1\nb: 2\n", 2, "is not YAML"),
        ("a: 1\n\tb: 2\n", 2, "is not YAML: a tab stands before the text"),
        ("a: 'open\n", 2, "is not YAML"),
        ("a: b: c\n", 1, "is not YAML"),
        ("a: *nobody\n", 1, "no anchor &nobody"),
        ("a: &a [*a]\n", 1, "within &a itself"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "tag"),
        ("a: 1\nb: !mine {x: 1}\n", 2, "tag"),
        ("a: 1\n\nb: " + "[" * 100 + "\n", 3, "nested deeper"),
        ("[1, 2]: x\n", 1, "a key must be a plain text"),
        ("a: " + "9" * 5000 + "\n", 1, "is not the int"),
        ("a: 1\nb: \x07\n", 2, "is not YAML"),
        ("a: 1\n---\nb: 1\nb: 2\n", 4, "stands here already, on line 3"),
        ("a: 1\nb: {<<: 3}\n", 2, "<< takes a mapping"),
    ],
)
def test_a_text_that_is_refused_is_told_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(BadYaml) as refused:
        read_yaml(text)
    assert message in str(refused.value)
    assert refused.value.line == line


def test_an_alias_bomb_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    with pytest.raises(BadYaml, match="aliases stand for more"):
        read_yaml(bomb)


def test_a_merge_bomb_is_refused() -> None:
    bomb = "a0: &a0 {k: [x, x, x, x, x, x, x, x, x]}\n" + "".join(
        f"a{n}: &a{n} {{{', '.join(f'k{i}: {{<<: *a{n - 1}}}' for i in range(9))}}}\n" for n in range(1, 12)
    )
    with pytest.raises(BadYaml, match="aliases stand for more"):
        read_yaml(bomb)


def test_too_many_values_are_refused() -> None:
    with pytest.raises(BadYaml, match="more than"):
        read_yaml("[" + "1," * (MAX_NODES + 1) + "]")


def test_nesting_up_to_the_bound_is_read() -> None:
    assert read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_aliases_and_merges_give_what_they_name() -> None:
    (document,) = read_yaml("base: &base {a: 1, b: 2}\none: *base\ntwo: {<<: *base, b: 3}\n")
    assert document.value == {"base": {"a": 1, "b": 2}, "one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}}
    assert document.line_of("two.a") == 1


def test_empty_documents_are_left_out() -> None:
    assert read_yaml("") == []
    assert [document.value for document in read_yaml("---\n---\n# only a comment\n---\na: 1\n")] == [{"a": 1}]
