"""The declaration in force while the instances of a service declare different ones."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.claims import plan_declarations
from mesh.cluster.records.declarations import (
    InstanceDeclaration,
    Standing,
    choose_declaration,
    describe_difference,
    difference_problems,
    standing_of,
)
from mesh.cluster.records.encode import (
    build_view,
    encode_daemon,
    encode_declaration_claim,
    encode_registration,
    encode_verdict,
)
from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import DrainReason, Endpoint, Health, PortPublication, Route, Scheduler, Service, Transport

OLD = Service("demo/web", "web.test", (Route("web.test", 80, Transport.TCP, 80),))
NEW = replace(OLD, scheduler=Scheduler.LC)
THIRD = replace(OLD, persistence=60)
PROBE = Probe(ProbeKind.TCP, 80)
BY_LETTER = {"o": OLD, "n": NEW, "t": THIRD}
BY_MARK = {"+": Standing.SERVING, "-": Standing.NOT_SERVING, "~": Standing.DRAINING, "?": Standing.WITHOUT_INSTANCE}


def instances(text: str) -> list[InstanceDeclaration]:
    """`o+ n-`: an instance that serves and has the old declaration, one that does not serve and has the new one."""
    return [InstanceDeclaration(BY_LETTER[word[0]], BY_MARK[word[1]], word) for word in text.split()]


@pytest.mark.parametrize(
    ("declared", "before", "in_force"),
    [
        ("o+", "o", "o"),
        ("o+ n+", "o", "o"),
        ("n+ o+", "o", "o"),
        ("o+ n+", "n", "n"),
        ("o+ n+ n+", "o", "n"),
        ("o+ o+ n+ n+", "o", "o"),
        ("o+ o+ n+ n+ n+", "o", "n"),
        ("o+ n+ n+ t+ t+", "o", "o"),
        ("o+ n- n- n-", "o", "o"),
        ("o- n+", "o", "n"),
        ("o~ n+", "o", "n"),
        ("o~ n-", "o", "n"),
        ("o~ n~", "o", "o"),
        ("o- n-", "o", "o"),
        ("o- n- n-", "o", "n"),
        ("n+ t+ t+", "o", "t"),
        ("n+", "o", "n"),
        ("n+ n+ o+", None, "n"),
        ("o? n+", "o", "n"),
        ("o? n?", "n", "n"),
    ],
)
def test_the_declaration_in_force(declared: str, before: str | None, in_force: str) -> None:
    chosen = choose_declaration(instances(declared), None if before is None else BY_LETTER[before])
    assert chosen == BY_LETTER[in_force]


DECLARED = st.lists(
    st.tuples(st.sampled_from([OLD, NEW, THIRD, replace(NEW, probe=PROBE)]), st.sampled_from(list(Standing))),
    min_size=1,
    max_size=9,
)
BEFORE = st.sampled_from([None, OLD, NEW, THIRD])


@given(DECLARED, BEFORE, st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_instances_decide(
    declared: list[tuple[Service, Standing]], before: Service | None, order: random.Random
) -> None:
    found = [InstanceDeclaration(service, standing, str(n)) for n, (service, standing) in enumerate(declared)]
    others = [instance._replace(who=f"{order.random()}") for instance in found]
    order.shuffle(others)
    assert choose_declaration(found, before) == choose_declaration(others, before)


@given(DECLARED, BEFORE)
def test_the_choice_is_one_that_instances_declare_and_stays_once_it_is_known(
    declared: list[tuple[Service, Standing]], before: Service | None
) -> None:
    found = [InstanceDeclaration(service, standing, "x") for service, standing in declared]
    chosen = choose_declaration(found, before)
    assert chosen in [service for service, _ in declared]
    assert choose_declaration(found, chosen.shared) == chosen
    deciding = [i.service.shared for i in found if i.standing is max(i.standing for i in found)]
    if before in deciding and chosen.shared != before:
        assert 2 * deciding.count(chosen.shared) > len(deciding)


@given(st.integers(1, 12))
def test_replacing_instances_one_by_one_changes_the_declaration_exactly_once(count: int) -> None:
    in_force, changes = OLD, 0
    for replaced in range(count + 1):
        both = instances("n+ " * replaced + "o+ " * (count - replaced))
        chosen = choose_declaration(both, in_force)
        changes += chosen != in_force
        in_force = chosen
    assert (in_force, changes) == (NEW, 1)


@pytest.mark.parametrize(
    ("change", "declared", "verdict", "kept", "standing"),
    [
        ({}, OLD, None, False, Standing.SERVING),
        ({"health": Health.UNHEALTHY}, OLD, None, False, Standing.NOT_SERVING),
        ({"health": Health.STARTING}, OLD, None, False, Standing.NOT_SERVING),
        ({"weight": 0}, OLD, None, False, Standing.NOT_SERVING),
        ({"drain": DrainReason.STOPPING}, OLD, None, False, Standing.DRAINING),
        ({"drain": DrainReason.ASKED}, OLD, None, False, Standing.DRAINING),
        ({}, replace(OLD, probe=PROBE), None, False, Standing.NOT_SERVING),
        ({}, replace(OLD, probe=PROBE), Health.HEALTHY, False, Standing.SERVING),
        ({}, replace(OLD, probe=PROBE), Health.UNHEALTHY, False, Standing.NOT_SERVING),
        ({}, replace(OLD, probe=PROBE), Health.UNHEALTHY, True, Standing.SERVING),
        ({"health": Health.UNHEALTHY}, replace(OLD, probe=PROBE), Health.HEALTHY, False, Standing.SERVING),
    ],
)
def test_which_instances_serve(
    change: dict[str, object], declared: Service, verdict: Health | None, kept: bool, standing: Standing
) -> None:
    endpoint = replace(Endpoint("a", "demo/web", "w1", "10.2.0.1"), **change)  # type: ignore[arg-type]
    assert standing_of(endpoint, declared, verdict, kept) is standing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scheduler": Scheduler.RR}, "scheduler rr, while wrr is in force"),
        ({"persistence": 30}, "client affinity 30 s, while 0 s is in force"),
        ({"fixed_vip": "10.112.0.9"}, "VIP 10.112.0.9, while auto is in force"),
        (
            {"routes": (Route("web.test", 80, Transport.TCP, 8080),)},
            "routes web.test:80/tcp to port 8080, while web.test:80/tcp to port 80 is in force",
        ),
        (
            {"publishes": (PortPublication(80, Transport.TCP, 30080),)},
            "published ports 30080/tcp to port 80, while none is in force",
        ),
    ],
)
def test_a_difference_names_both_values(change: dict[str, object], words: str) -> None:
    assert describe_difference(replace(OLD, **change), OLD) == words  # type: ignore[arg-type]


def test_one_problem_for_each_declaration_that_differs_and_none_for_a_probe() -> None:
    found = [*instances("n+ n- o+ t+"), InstanceDeclaration(replace(OLD, probe=PROBE), Standing.SERVING, "p+")]
    problems = difference_problems(found, OLD)
    assert [problem.reason.partition(" declares")[0] for problem in problems] == ["n+ (and 1 more)", "t+"]
    assert {problem.owner for problem in problems} == {"demo/web"}


def test_ports_that_differ_between_releases_are_refused_with_the_name_of_the_other_release() -> None:
    other_ports = replace(OLD, routes=(Route("web.test", 81, Transport.TCP, 80),))
    found = [
        InstanceDeclaration(OLD, Standing.SERVING, "instance a of worker w1", "v1"),
        InstanceDeclaration(OLD, Standing.WITHOUT_INSTANCE, "worker w3"),
        InstanceDeclaration(other_ports, Standing.SERVING, "instance b of worker w2", "v2"),
    ]
    [problem] = difference_problems(found, OLD)
    assert problem.reason.startswith("instance b of worker w2, release v2, declares routes web.test:81/tcp to port 80")
    assert problem.reason.endswith(" is in force, as release v1 declares")


def _records(*runs: tuple[str, Service]) -> dict[str, bytes]:
    """Workers, each with one endpoint that declares this."""
    found: dict[str, bytes] = {}
    for number, (worker, declared) in enumerate(runs, start=1):
        endpoint = Endpoint(f"demo/web/{worker}", "demo/web", worker, f"10.2.0.{number}")
        found |= encode_registration(worker, [declared], [endpoint]) | encode_daemon(worker, "1", "s")
        if declared.probe is not None:
            found |= [encode_verdict(worker, endpoint.key, Health.HEALTHY)]
    return found


@pytest.mark.parametrize("newcomer", ["a", "z"])
def test_a_newcomer_changes_nothing_wherever_it_sorts(newcomer: str) -> None:
    records = _records(("m", OLD), (newcomer, NEW)) | encode_declaration_claim(OLD)
    seen, [problem] = build_view(records)
    assert seen.services == (OLD,)
    assert f"instance demo/web/{newcomer} of worker {newcomer} declares scheduler lc" in str(problem)
    assert plan_declarations(seen.services, seen.claims) == ()


def test_a_declaration_that_takes_over_is_recorded() -> None:
    seen, _ = build_view(_records(("a", OLD), ("b", NEW), ("c", NEW)) | encode_declaration_claim(OLD))
    assert seen.services == (NEW,)
    [wish] = plan_declarations(seen.services, seen.claims)
    assert (wish.service, wish.before) == (NEW, OLD)
    [first] = plan_declarations(seen.services, Claims())
    assert first.before is None


def test_a_record_that_no_instance_declares_decides_nothing() -> None:
    """A record in the store cannot make up ports of a service."""
    seen, problems = build_view(_records(("a", OLD), ("b", OLD)) | encode_declaration_claim(NEW))
    assert (seen.services, problems) == ((OLD,), ())


def test_a_probe_of_one_worker_keeps_no_endpoint_of_another_out_of_traffic() -> None:
    probed = replace(OLD, probe=PROBE)
    records = _records(("a", probed), ("b", OLD))
    seen, problems = build_view(records)
    assert problems == (), "probes are each endpoint's own"
    services = {endpoint.worker: endpoint.declared or seen.services[0] for endpoint in seen.endpoints}
    assert services == {"a": probed, "b": OLD}


WORKERS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([OLD, NEW, THIRD, replace(NEW, probe=PROBE)])),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[0],
)


@given(WORKERS, BEFORE)
def test_workers_with_other_names_come_to_the_same_result(
    rows: list[tuple[str, Service]], before: Service | None
) -> None:
    """Renaming all workers, so that they sort the other way round, changes nothing."""
    claim = {} if before is None else encode_declaration_claim(before)
    one, _ = build_view(_records(*rows) | claim)
    other, _ = build_view(
        _records(*((chr(ord("a") + ord("z") - ord(name)), service) for name, service in rows)) | claim
    )
    assert one.services == other.services
