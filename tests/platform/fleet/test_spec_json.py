"""A service survives the way to the engine's JSON and back; whatever else the JSON has is named and harmless."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.platform.fleet.decode import decode_spec
from mesh.platform.fleet.encode import encode_spec
from mesh.platform.fleet.json_fields import MAX_ENTRIES, MAX_NOTES, MAX_TEXT
from mesh.platform.fleet.protocol import (
    FleetContainer,
    FleetFile,
    FleetHealthCheck,
    FleetMount,
    FleetMountKind,
    FleetPort,
    FleetResources,
    FleetRestart,
    FleetSpec,
)

texts = st.sampled_from(["", "a", "B", "x y", "k=v", "=", "\n", '"', "ä", "0", "\x00", "{{.Task.Slot}}", "💾"])
words = st.sampled_from(["a", "b", "Z", "0", "a.b", "_", "-x"])
some_texts = st.lists(texts, max_size=3).map(tuple)
numbers = st.sampled_from([0, 1, 2, 10_000_000_000, (1 << 63) - 1])
labels = st.dictionaries(texts, texts, max_size=3)


def option(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.one_of(st.just({}), values.map(lambda value: {name: value}))


def merged(*parts: st.SearchStrategy[dict[str, str]]) -> st.SearchStrategy[dict[str, str]]:
    return st.tuples(*parts).map(lambda each: {name: value for part in each for name, value in part.items()})


positive = st.sampled_from([1, 8, 0o1777, (1 << 63) - 1])
options = {
    FleetMountKind.BIND: option("propagation", words),
    FleetMountKind.VOLUME: merged(
        option("nocopy", st.just("true")),
        option("driver", words),
        st.dictionaries(words.map("driver_opts.{}".format), texts, max_size=2),
        st.dictionaries(words.map("labels.{}".format), texts, max_size=2),
    ),
    FleetMountKind.TMPFS: merged(option("size", positive.map(str)), option("mode", positive.map("{:o}".format))),
}
mounts = st.sampled_from(FleetMountKind).flatmap(
    lambda kind: st.builds(FleetMount, st.just(kind), texts, texts, st.booleans(), options[kind])
)
files = st.lists(
    st.builds(FleetFile, words, texts, texts, texts, st.integers(0, 0o7777), st.booleans()), max_size=3
).map(lambda found: tuple(sorted(found, key=lambda each: not each.is_secret)))
resources = st.builds(FleetResources, numbers, numbers, numbers)
environment = st.dictionaries(words, st.none() | texts, max_size=4).map(lambda found: tuple(sorted(found.items())))
container_fields: dict[str, st.SearchStrategy[Any]] = {
    "image": texts,
    "command": some_texts,
    "args": some_texts,
    "environment": environment,
    "labels": labels,
    "hostname": texts,
    "directory": texts,
    "user": texts,
    "groups": some_texts,
    "mounts": st.lists(mounts, max_size=3).map(tuple),
    "files": files,
    "hosts": some_texts,
    "nameservers": some_texts,
    "search_domains": some_texts,
    "resolver_options": some_texts,
    "stop_signal": texts,
    "stop_grace": numbers,
    "health_check": st.none() | st.builds(FleetHealthCheck, some_texts, numbers, numbers, numbers, numbers),
    "capabilities_added": some_texts,
    "capabilities_dropped": some_texts,
    "sysctls": labels,
    "ulimits": st.lists(st.tuples(words, st.integers(-1, 99), st.integers(-1, 99)), max_size=3).map(sorted).map(tuple),
    "init": st.none() | st.booleans(),
    "read_only": st.booleans(),
    "tty": st.booleans(),
    "open_stdin": st.booleans(),
    "isolation": st.sampled_from(["", "process", "hyperv"]),
}
spec_fields: dict[str, st.SearchStrategy[Any]] = {
    "name": texts,
    "labels": labels,
    "instances": st.none() | st.integers(0, 1000),
    "ports": st.lists(st.builds(FleetPort, st.integers(1, 65535), st.sampled_from(["tcp", "udp"])), max_size=3).map(
        tuple
    ),
    "limits": resources,
    "reservations": resources.map(lambda found: replace(found, pids=0)),
    "constraints": some_texts,
    "spreads": st.lists(words, max_size=2).map(tuple),
    "most_per_worker": numbers,
    "restart": st.builds(FleetRestart, st.sampled_from(["any", "on-failure", "none"]), numbers, numbers, numbers),
    "networks": some_texts,
    "log_driver": texts,
    "log_options": labels,
}


def some_of(fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A few fields, since all of them at once take long to make."""
    return st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


containers = some_of(container_fields).map(lambda found: FleetContainer(**{"image": "web:1", **found}))
spec_fields["container"] = containers
specs = st.builds(
    lambda container, found: FleetSpec(**{"name": "web", "container": container, **found}),
    containers,
    some_of(spec_fields),
)


def encoded(spec: FleetSpec) -> dict[str, Any]:
    ids = {each.name: f"id of {each.name}" for each in spec.container.files}
    raw: dict[str, Any] = json.loads(json.dumps(encode_spec(spec, ids, ids)))
    return raw


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs)
def test_a_service_is_the_same_after_the_way_to_the_engine_and_back(spec: FleetSpec) -> None:
    assert decode_spec(encoded(spec)) == (spec, ())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs)
def test_what_the_engine_adds_changes_nothing_and_is_nobodys(spec: FleetSpec) -> None:
    raw = encoded(spec)
    template = raw["TaskTemplate"]
    template.update(ForceUpdate=3, Runtime="container")
    template.setdefault("Placement", {})["Platforms"] = [{"Architecture": "amd64", "OS": "linux"}]
    container = template.setdefault("ContainerSpec", {})
    container.setdefault("Isolation", "default")
    container["Privileges"] = {"CredentialSpec": None, "SELinuxContext": None}
    container.setdefault("DNSConfig", {})
    for mount in container.get("Mounts", ()):
        mount.setdefault("Consistency", "default")
    raw["UpdateConfig"] = None
    assert decode_spec(raw) == (spec, ())


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        for name in path[:-1]:
            raw = raw.setdefault(name, {})
        raw[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("UpdateConfig", value={"Parallelism": 1}), "UpdateConfig"),
        (put("TaskTemplate", "ContainerSpec", "Privileges", value={"NoNewPrivileges": True}), "Privileges"),
        (put("TaskTemplate", "ContainerSpec", "Future", value="x"), "TaskTemplate.ContainerSpec.Future"),
        (put("TaskTemplate", "Runtime", value="plugin"), "TaskTemplate.Runtime"),
        (put("Mode", value={"ReplicatedJob": {}}), "Mode.ReplicatedJob"),
        (put("EndpointSpec", "Mode", value="vip"), "EndpointSpec.Mode"),
        (
            put("EndpointSpec", "Ports", value=[{"TargetPort": 80, "PublishMode": "host", "PublishedPort": 8080}]),
            "EndpointSpec.Ports[0].PublishedPort",
        ),
        (
            put("EndpointSpec", "Ports", value=[{"TargetPort": 80, "PublishMode": "ingress"}]),
            "EndpointSpec.Ports[0].PublishMode",
        ),
        (put("TaskTemplate", "Networks", value=[{"Target": "n", "Aliases": ["web"]}]), "Networks[0].Aliases"),
        (put("TaskTemplate", "ContainerSpec", "Mounts", value=[{"Type": "npipe"}]), "Mounts[0].Type"),
        (put("TaskTemplate", "RestartPolicy", "Condition", value="often"), "RestartPolicy.Condition"),
        (
            put("TaskTemplate", "Resources", "Reservations", value={"GenericResources": [{}]}),
            "Reservations.GenericResources",
        ),
    ],
)
def test_what_others_set_is_named(change: Callable[[dict[str, Any]], None], named: str) -> None:
    raw = encoded(FleetSpec("web", FleetContainer("web:1")))
    change(raw)
    _, unknown = decode_spec(raw)
    assert len(unknown) == 1
    assert unknown[0].endswith(named) or named in unknown[0]


def test_a_missing_restart_policy_is_the_engines_own() -> None:
    spec, _ = decode_spec({"Name": "web"})
    assert spec.restart == FleetRestart("any", 5_000_000_000)


def test_a_network_goes_by_its_name_where_it_is_known() -> None:
    raw = {"TaskTemplate": {"Networks": [{"Target": "id1"}, {"Target": "id2"}]}}
    assert decode_spec(raw, {"id1": "host"})[0].networks == ("host", "id2")


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_shape_of_any_field_raises(data: st.DataObject) -> None:
    """Each field of a whole service in turn becomes anything."""
    raw = encoded(data.draw(specs))

    def places(value: object) -> list[tuple[Any, Any]]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [place for key, each in pairs for place in [(value, key), *places(each)]]

    holder, key = data.draw(st.sampled_from(places(raw)))
    holder[key] = data.draw(wild)
    spec, unknown = decode_spec(raw)
    assert len(unknown) <= MAX_NOTES
    assert isinstance(spec, FleetSpec)


@settings(max_examples=60, deadline=None)
@given(wild)
def test_no_json_at_all_raises(raw: object) -> None:
    assert isinstance(decode_spec(raw)[0], FleetSpec)


def test_bounds_hold() -> None:
    long = {
        "Name": "n" * (MAX_TEXT + 1),
        "Labels": {str(n): "" for n in range(MAX_ENTRIES + 1)},
        "TaskTemplate": {"ContainerSpec": {"Args": ["x"] * (MAX_ENTRIES + 1), "User": "\ud800"}},
        "Mode": {"Replicated": {"Replicas": 1 << 80}},
        "\x1b[31m" + "k" * 500: 1,
    }
    spec, unknown = decode_spec(long)
    assert (spec.name, spec.labels, spec.container.args, spec.instances) == ("", {}, (), 1)
    assert {"Name", "Labels", "TaskTemplate.ContainerSpec.Args", "Mode.Replicated.Replicas"} <= set(unknown)
    assert all(each.isprintable() and len(each) <= 120 for each in unknown)
    assert len(decode_spec({str(n): 1 for n in range(1000)})[1]) == MAX_NOTES


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (FleetMount(FleetMountKind.TMPFS, "/t", options={"size": "1g"}), "'1g'"),
        (FleetMount(FleetMountKind.TMPFS, "/t", options={"mode": "9"}), "'9'"),
        (FleetMount(FleetMountKind.VOLUME, "/v", options={"nocopy": "maybe"}), "nocopy is 'maybe'"),
        (FleetMount(FleetMountKind.BIND, "/b", options={"nocopy": "true"}), "no option 'nocopy'"),
    ],
)
def test_an_option_that_is_not_valid_is_refused_in_words(mount: FleetMount, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_spec(FleetSpec("web", FleetContainer("web:1", mounts=(mount,))))


def test_a_secret_that_the_engine_lacks_is_refused_with_what_to_do() -> None:
    spec = FleetSpec("web", FleetContainer("web:1", files=(FleetFile("key", "key", is_secret=True),)))
    with pytest.raises(ValueError, match="docker secret create"):
        encode_spec(spec)
