"""Compose files, labels and environment entries become a stack."""

import pytest

from mesh.model.codes import Code
from mesh.model.problem import Severity
from mesh.platform.fleet.protocol import (
    FleetFile,
    FleetHealthCheck,
    FleetMount,
    FleetMountKind,
    FleetPort,
    FleetResources,
    FleetRestart,
)
from mesh.platform.stacks.model import (
    StackAffinity,
    StackAffinityKind,
    StackCondition,
    StackNeed,
    StackStrategy,
    StackZones,
)
from mesh.platform.stacks.stack import read_stack
from mesh.sources.compose.environment import read_environment
from mesh.sources.compose.parse import read_compose_project
from mesh.sources.compose.references import ComposeText, NoComposeFiles
from tests.platform.stacks.stacks import service_text, stack_of, web_of

SECOND = 10**9
MISSION = """
services:
  server:
    image: test_service
    labels:
      aliyun.scale: "2"
      aliyun.routing.port_80: restserver.local
      aliyun.probe.url: http://container:80
      aliyun.probe.initial_delay_seconds: "2"
      aliyun.probe.timeout_seconds: "2"
  client:
    image: test_app
    external_links: ["restserver.local"]
"""


def test_the_snippet_of_the_talk_has_no_problem_and_two_instances() -> None:
    stack = stack_of(MISSION)
    assert stack.problems == ()
    assert [(service.name, service.instances) for service in stack.services] == [("server", 2), ("client", 1)]
    assert stack.services[0].ports == (FleetPort(80),)


@pytest.mark.parametrize(
    ("written", "instances"),
    [
        ("", 1),
        ("scale: 3", 3),
        ("deploy: {replicas: 4}", 4),
        ("deploy: {replicas: 0}", 0),
        ("deploy: {replicas: 4}\nlabels: {mesh.scale: 2}", 2),
        ("deploy: {mode: global}", None),
        ("labels: {aliyun.global: 'true'}", None),
        ("labels: {aliyun.global: 'true', aliyun.scale: '1'}", None),
        ("labels: {aliyun.global: 'false'}\ndeploy: {mode: global}", 1),
    ],
)
def test_how_many_instances(written: str, instances: int | None) -> None:
    assert web_of(written).instances == instances


@pytest.mark.parametrize(
    ("written", "limits", "reservations"),
    [
        ("mem_limit: 64m", FleetResources(memory_bytes=64 << 20), FleetResources()),
        ("mem_limit: 1.5gb", FleetResources(memory_bytes=3 << 29), FleetResources()),
        ("mem_limit: 67108864", FleetResources(memory_bytes=64 << 20), FleetResources()),
        ("mem_limit: -1", FleetResources(), FleetResources()),
        ("cpus: 0.5", FleetResources(cpu_nanos=500_000_000), FleetResources()),
        ("cpus: '.5'", None, None),
        ("pids_limit: 100", FleetResources(pids=100), FleetResources()),
        ("pids_limit: -1", FleetResources(), FleetResources()),
        ("mem_reservation: 16m", FleetResources(), FleetResources(memory_bytes=16 << 20)),
        (
            """\
deploy:
  resources:
    limits: {cpus: '0.25', memory: 32M, pids: 9}
    reservations: {cpus: 0.1, memory: 8M}""",
            FleetResources(250_000_000, 32 << 20, 9),
            FleetResources(100_000_000, 8 << 20),
        ),
        (
            "mem_limit: 32m\ndeploy: {resources: {limits: {memory: 33554432}}}",
            FleetResources(memory_bytes=32 << 20),
            FleetResources(),
        ),
        ("mem_limit: 32m\ndeploy: {resources: {limits: {memory: 64m}}}", None, None),
        ("mem_limit: 32m\nmem_reservation: 64m", None, None),
        ("mem_limit: much", None, None),
        ("mem_limit: 99999999999999999t", None, None),
    ],
)
def test_limits_and_reservations_in_every_form(
    written: str, limits: FleetResources | None, reservations: FleetResources | None
) -> None:
    stack = stack_of(service_text(written))
    if limits is None:
        assert stack.services == ()
        assert stack.refused == {"web"}
        assert {problem.code for problem in stack.problems} == {Code.STACK_VALUE}
    else:
        assert [(service.limits, service.reservations) for service in stack.services] == [(limits, reservations)]


def test_cpu_shares_are_ignored_with_what_to_write() -> None:
    stack = stack_of(service_text("cpu_shares: 512"))
    (problem,) = stack.problems
    assert (problem.code, problem.severity, problem.where) == (
        Code.STACK_KEY_IGNORED,
        Severity.WARNING,
        "compose.yaml:4",
    )
    assert "deploy.resources.reservations.cpus" in problem.remedy
    assert len(stack.services) == 1


@pytest.mark.parametrize(
    "written",
    [
        "privileged: true",
        "devices: ['/dev/fuse:/dev/fuse']",
        "network_mode: container:db",
        "network_mode: none",
        "ipc: host",
        "pid: host",
        "security_opt: ['seccomp:unconfined']",
        "shm_size: 64m",
        "volumes_from: [db]",
        "container_name: web",
        "userns_mode: host",
        "memswap_limit: 1g",
        "deploy: {mode: replicated-job}",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "volumes: [{type: npipe, source: x, target: /x}]",
        "volumes: [{type: volume, source: data, target: /x, volume: {subpath: a}}]",
        "pull_policy: build",
    ],
)
def test_what_no_service_of_the_engine_can_have_refuses_the_service_alone(written: str) -> None:
    stack = stack_of(service_text(written))
    (problem,) = [problem for problem in stack.problems if problem.severity is Severity.ERROR]
    assert problem.code is Code.STACK_KEY_REFUSED
    assert problem.where == "compose.yaml:4"
    assert problem.remedy
    assert not stack.services
    assert stack.refused == {"web"}


@pytest.mark.parametrize(
    "written",
    ["privileged: false", "devices: []", "memswap_limit: 0", "memswap_limit: -1", "ipc:", "links: []", "shm_size: 0"],
)
def test_a_key_that_says_nothing_is_no_reason(written: str) -> None:
    stack = stack_of(service_text(written))
    assert stack.problems == ()
    assert len(stack.services) == 1


@pytest.mark.parametrize("key", ["deploy", "healthcheck", "logging"])
def test_a_key_that_must_be_a_mapping_and_is_none_refuses_the_service(key: str) -> None:
    stack = stack_of(service_text(f"{key}: [a]"))
    assert [problem.code for problem in stack.problems] == [Code.STACK_VALUE]
    assert stack.refused == {"web"}


def test_aliases_that_stand_for_millions_of_values_refuse_the_service() -> None:
    lines = ["x-0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    stack = stack_of("\n".join([*lines, "services:", "  web:", "    image: x", "    command: *a8"]))
    assert stack.services == ()
    assert [problem.severity for problem in stack.problems][:1] == [Severity.ERROR]


def test_a_variable_that_is_not_set_is_a_warning() -> None:
    text = "services: {web: {image: 'x:$TAG', environment: ['A=$B']}}"
    stack = stack_of(text, {"B": "1"})
    assert [problem.code for problem in stack.problems] == [Code.COMPOSE_VARIABLE]
    assert stack.services[0].container.image == "x:"
    assert stack_of(text, {"B": "1", "TAG": "2"}).problems == ()


def test_a_later_file_of_one_project_changes_the_stack() -> None:
    """Environment and hosts are kept as layers until they are read."""
    texts = [
        ComposeText(
            "a.yaml", "services: {web: {image: x, environment: [A=1, 'constraint:a==b'], extra_hosts: [h=1.1.1.1]}}"
        ),
        ComposeText(
            "b.yaml", "services: {web: {environment: {A: 2, 'constraint:c': '==d'}, extra_hosts: {i: 1.1.1.2}}}"
        ),
    ]
    content = read_compose_project(texts, "", [{}, {}], NoComposeFiles())
    environment, _ = read_environment(content.services["web"], NoComposeFiles())
    (web,) = read_stack(content, "shop", {"web": environment}, "mesh.internal").services
    assert web.container.environment == (("A", "2"),)
    assert web.constraints == ("node.labels.a==b", "node.labels.c==d")
    assert web.container.hosts == ("1.1.1.1 h", "1.1.1.2 i")


def test_the_others_of_a_file_go_on_when_one_is_refused() -> None:
    stack = stack_of("services: {a: {image: a, privileged: true}, b: {image: b}}")
    assert [service.name for service in stack.services] == ["b"]
    assert stack.refused == {"a"}


@pytest.mark.parametrize(
    ("written", "is_refused"), [("build: .\n    image: x", False), ("build: .", True), ("labels: {}", True)]
)
def test_a_service_needs_an_image_that_workers_can_pull(written: str, *, is_refused: bool) -> None:
    stack = stack_of(f"services:\n  web:\n    {written}\n")
    assert stack.refused == ({"web"} if is_refused else set())


@pytest.mark.parametrize(
    ("written", "mount"),
    [
        ("volumes: ['data:/x']", FleetMount(FleetMountKind.VOLUME, "/x", "shop_data")),
        ("volumes: ['data:/x:ro']", FleetMount(FleetMountKind.VOLUME, "/x", "shop_data", read_only=True)),
        (
            "volumes: ['data:/x:nocopy']",
            FleetMount(FleetMountKind.VOLUME, "/x", "shop_data", False, {"nocopy": "true"}),
        ),
        ("volumes: ['/x/']", FleetMount(FleetMountKind.VOLUME, "/x")),
        ("volumes: ['./a:/x']", FleetMount(FleetMountKind.BIND, "/x", "/srv/shop/a")),
        ("volumes: ['../a:/x']", FleetMount(FleetMountKind.BIND, "/x", "/srv/a")),
        ("volumes: ['/a:/x:ro,z']", FleetMount(FleetMountKind.BIND, "/x", "/a", read_only=True)),
        (
            "volumes: ['/a:/x:rslave']",
            FleetMount(FleetMountKind.BIND, "/x", "/a", False, {"propagation": "rslave"}),
        ),
        (
            "volumes: [{type: bind, source: ./a, target: /x, read_only: true}]",
            FleetMount(FleetMountKind.BIND, "/x", "/srv/shop/a", read_only=True),
        ),
        ("volumes: [{type: volume, target: /x}]", FleetMount(FleetMountKind.VOLUME, "/x")),
        (
            "volumes: [{type: tmpfs, target: /x, tmpfs: {size: 1m, mode: 0o1777}}]",
            FleetMount(FleetMountKind.TMPFS, "/x", "", False, {"size": "1048576", "mode": "1777"}),
        ),
        ("tmpfs: /x", FleetMount(FleetMountKind.TMPFS, "/x")),
        (
            "tmpfs: ['/x:size=64k,mode=755,noexec']",
            FleetMount(FleetMountKind.TMPFS, "/x", "", False, {"size": "65536", "mode": "755"}),
        ),
    ],
)
def test_mounts(written: str, mount: FleetMount) -> None:
    assert web_of(written).container.mounts == (mount,)


@pytest.mark.parametrize("written", ["~/a:/x", "data:x", "data:/x:fast", "data:"])
def test_a_mount_that_cannot_be_read_names_its_line(written: str) -> None:
    stack = stack_of(service_text(f"volumes:\n  - '{written}'"))
    (problem,) = stack.problems
    assert (problem.code, problem.where) == (Code.STACK_VALUE, "compose.yaml:5")


@pytest.mark.parametrize(
    ("declared", "source", "options"),
    [
        ("{name: mine}", "mine", {}),
        ("{external: true}", "data", {}),
        ("{external: {name: old}}", "old", {}),
        (
            "{driver: nfs, driver_opts: {o: addr=1}, labels: {a: b}}",
            "shop_data",
            {"driver": "nfs", "driver_opts.o": "addr=1", "labels.a": "b"},
        ),
    ],
)
def test_volumes_of_the_file(declared: str, source: str, options: dict[str, str]) -> None:
    text = f"services: {{web: {{image: x, volumes: ['data:/x']}}}}\nvolumes: {{data: {declared}}}"
    (mount,) = stack_of(text).services[0].container.mounts
    assert (mount.source, mount.options) == (source, options)


def test_configs_and_secrets_must_be_in_the_engine() -> None:
    text = """
services:
  web: {image: x, configs: [{source: a, target: /etc/a, mode: 0o440}], secrets: [s]}
  old: {image: x, configs: [b]}
  bad: {image: x, configs: [c]}
configs: {a: {external: true, name: a-1}, b: {file: ./b}}
secrets: {s: {external: true}}
"""
    stack = stack_of(text)
    (web,) = stack.services
    assert web.container.files == (
        FleetFile("a-1", "/etc/a", mode=0o440),
        FleetFile("s", "/run/secrets/s", is_secret=True),
    )
    assert stack.refused == {"old", "bad"}
    assert {problem.code for problem in stack.problems} == {Code.STACK_FILE}


def test_what_a_container_is_made_of() -> None:
    container = web_of(
        """\
entrypoint: /bin/sh -c "exit 1"
command: [a, "b c"]
environment: {B: 2, A: x}
hostname: h
working_dir: /w
user: "1:2"
group_add: [3]
extra_hosts: ["a:10.0.0.1", "b=::1", "c:[::2]"]
dns: 10.112.0.1
dns_search: [x.test]
dns_opt: ["ndots:1"]
stop_signal: SIGTERM
stop_grace_period: 1m30s
healthcheck: {test: curl x, interval: 500ms, timeout: 2s, start_period: 1h, retries: 3}
cap_add: [NET_ADMIN, CHOWN]
cap_drop: [ALL]
sysctls: ["net.core.somaxconn=1024"]
ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}
init: true
read_only: true
tty: true
stdin_open: true
isolation: default
"""
    ).container
    assert (container.command, container.args) == (("/bin/sh", "-c", "exit 1"), ("a", "b c"))
    assert container.environment == (("A", "x"), ("B", "2"))
    assert (container.hostname, container.directory, container.user, container.groups) == ("h", "/w", "1:2", ("3",))
    assert container.hosts == ("10.0.0.1 a", "::1 b", "::2 c")
    assert (container.nameservers, container.search_domains) == (("10.112.0.1",), ("x.test",))
    assert container.resolver_options == ("ndots:1",)
    assert (container.stop_signal, container.stop_grace) == ("SIGTERM", 90 * SECOND)
    assert container.health_check == FleetHealthCheck(
        ("CMD-SHELL", "curl x"), SECOND // 2, 2 * SECOND, 3600 * SECOND, 3
    )
    assert (container.capabilities_added, container.capabilities_dropped) == (("CHOWN", "NET_ADMIN"), ("ALL",))
    assert container.sysctls == {"net.core.somaxconn": "1024"}
    assert container.ulimits == (("nofile", 1, 2), ("nproc", 65535, 65535))
    assert (container.init, container.read_only, container.tty, container.open_stdin) == (True, True, True, True)
    assert container.isolation == "default"


@pytest.mark.parametrize(
    ("written", "restart"),
    [
        ("", FleetRestart()),
        ("restart: always", FleetRestart()),
        ("restart: unless-stopped", FleetRestart()),
        ("restart: 'no'", FleetRestart("none")),
        ("restart: on-failure:3", FleetRestart("on-failure", attempts=3)),
        (
            "deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2, window: 1m}}",
            FleetRestart("on-failure", 5 * SECOND, 2, 60 * SECOND),
        ),
    ],
)
def test_restart(written: str, restart: FleetRestart) -> None:
    assert web_of(written).restart == restart


@pytest.mark.parametrize(
    ("written", "strategy", "why"),
    [
        ("", StackStrategy.ROLLING, "nothing says otherwise"),
        ("volumes: ['data:/x:ro']", StackStrategy.ROLLING, "nothing says otherwise"),
        ("volumes: ['/x']", StackStrategy.ROLLING, "nothing says otherwise"),
        ("volumes: ['data:/x']", StackStrategy.REPLACE, "the volume at /x"),
        ("volumes: ['./a:/x']", StackStrategy.REPLACE, "the bind at /x"),
        ("volumes: ['data:/x']\nlabels: {mesh.rolling_updates: 'true'}", StackStrategy.ROLLING, "rolling_updates"),
        ("labels: {mesh.rolling_updates: 'false'}", StackStrategy.REPLACE, "rolling_updates"),
        (
            "labels: {mesh.rolling_updates: 'true', mesh.release.strategy: replace}",
            StackStrategy.REPLACE,
            "release.strategy says replace",
        ),
    ],
)
def test_the_strategy_and_why(written: str, strategy: StackStrategy, why: str) -> None:
    service = web_of(written)
    assert service.strategy is strategy
    assert why in service.why


@pytest.mark.parametrize(("value", "parallelism"), [("3", 3), ("0", 1), ("many", 1)])
def test_parallelism_is_one_if_it_is_no_number(value: str, parallelism: int) -> None:
    labels = f"labels: {{aliyun.rolling_updates: 'true', aliyun.rolling_updates.parallelism: '{value}'}}"
    assert web_of(labels).parallelism == parallelism


@pytest.mark.parametrize(
    ("written", "can_move"),
    [
        ("", True),
        ("volumes: ['data:/x:ro']", True),
        ("volumes: ['data:/x']", False),
        ("volumes: ['data:/x']\nenvironment: ['reschedule:on-node-failure']", True),
    ],
)
def test_a_service_that_writes_data_is_not_moved_unless_its_file_says_so(written: str, *, can_move: bool) -> None:
    assert web_of(written).can_move is can_move


@pytest.mark.parametrize(
    ("written", "is_pulled"),
    [
        ("", False),
        ("labels: {aliyun.latest_image: 'true'}", True),
        ("pull_policy: always", True),
        ("pull_policy: missing", False),
    ],
)
def test_always_pull(written: str, *, is_pulled: bool) -> None:
    assert web_of(written).always_pull is is_pulled


@pytest.mark.parametrize(
    ("entry", "constraints"),
    [
        ("constraint:group==1", ("node.labels.group==1",)),
        ("constraint:group!=a", ("node.labels.group!=a",)),
        ("constraint:aliyun.node_index==1", ("node.labels.aliyun.node_index==1",)),
        ("constraint:node==w1", ("node.hostname==w1",)),
        ("constraint:group==~1", ()),
    ],
)
@pytest.mark.parametrize("form", ["list", "mapping"])
def test_constraints_among_the_environment(entry: str, constraints: tuple[str, ...], form: str) -> None:
    name, _, value = entry.partition("==") if "==" in entry else entry.partition("!=")
    operator = "==" if "==" in entry else "!="
    written = (
        f"environment: ['{entry}', A=1]" if form == "list" else f"environment: {{'{name}': '{operator}{value}', A: 1}}"
    )
    service = web_of(written)
    assert service.constraints == constraints
    assert service.container.environment == (("A", "1"),)


def test_entries_of_one_name_all_count() -> None:
    service = web_of("environment: ['affinity:service!=db', 'affinity:service!=cache', 'affinity:a.b==c']")
    where = "compose.yaml:2"
    assert service.affinities == (
        StackAffinity(StackAffinityKind.SERVICE, "db", "", False, where),
        StackAffinity(StackAffinityKind.SERVICE, "cache", "", False, where),
        StackAffinity(StackAffinityKind.LABEL, "a.b", "c", True, where),
    )
    assert service.container.environment == ()


@pytest.mark.parametrize(("entry", "count", "is_hard"), [("az==3", 3, True), ("az==~2", 2, False)])
def test_zones(entry: str, count: int, *, is_hard: bool) -> None:
    assert web_of(f"environment: ['availability:{entry}']").zones == (
        StackZones("az", count, is_hard, "compose.yaml:2"),
    )


@pytest.mark.parametrize(
    "entry",
    [
        "constraint:group==db*",
        "constraint:group==/a/",
        "constraint:group",
        "constraint:group=1",
        "affinity:container==x",
        "affinity:image==x",
        "affinity:service==web",
        "affinity:service==/x/",
        "availability:az==0",
        "availability:az!=3",
        "availability:az==many",
        "reschedule:off",
        "reschedule:x",
    ],
)
def test_a_placement_that_cannot_be_kept_refuses_the_service(entry: str) -> None:
    stack = stack_of(service_text(f"environment: ['{entry}']"))
    (problem,) = stack.problems
    assert (problem.code, problem.severity) == (Code.STACK_PLACEMENT, Severity.ERROR)
    assert not stack.services
    assert stack.refused == {"web"}


def test_placement_of_deploy() -> None:
    service = web_of(
        "platform: linux/arm64\n"
        "deploy: {placement: {constraints: ['node.labels.a == b', 'node.role!=manager'],"
        " preferences: [{spread: node.labels.az}], max_replicas_per_node: 2}}"
    )
    assert service.constraints == (
        "node.labels.a==b",
        "node.role!=manager",
        "node.platform.os==linux",
        "node.platform.arch==aarch64",
    )
    assert (service.spreads, service.most_per_worker) == (("node.labels.az",), 2)


@pytest.mark.parametrize(
    ("ports", "labels", "published"),
    [
        ("['8080:80']", {"port_80": "8080"}, [80]),
        ("['80']", {"port_80": "auto"}, [80]),
        ("['8000-8001:80-81']", {"port_80": "8000", "port_81": "8001"}, [80, 81]),
        ("['8000-8009:80']", {"port_80": "auto"}, [80]),
        ("['53:53/udp']", {"port_53/udp": "53"}, [53]),
        ("['0.0.0.0:8080:80']", {"port_80": "8080"}, [80]),
        ("[{target: 80, published: 8080, mode: host}]", {"port_80": "8080"}, [80]),
        ("['127.0.0.1:8080:80']", {}, []),
        ("['[::1]:8080:80']", {}, []),
    ],
)
def test_ports_are_labels_that_publish(ports: str, labels: dict[str, str], published: list[int]) -> None:
    service = web_of(f"ports: {ports}")
    found = {key: value for key, value in service.container.labels.items() if "publish" in key}
    assert found == {f"mesh.routing.publish.{key}": value for key, value in labels.items()}
    assert [port.port for port in service.ports] == published


def test_a_label_that_publishes_goes_before_ports() -> None:
    service = web_of("ports: ['80']\nlabels: {aliyun.routing.publish.port_80: '9'}")
    assert service.container.labels == {"aliyun.routing.publish.port_80": "9"}
    stack = stack_of(service_text("ports: ['8:80']\nlabels: {aliyun.routing.publish.port_80: '9'}"))
    assert [problem.code for problem in stack.problems] == [Code.STACK_KEY_IGNORED]


@pytest.mark.parametrize("port", ["x", "0:80", "70000:80", "1-3:80-81", "8080:80/icmp", "1:2:3:4"])
def test_a_port_that_cannot_be_read_is_refused(port: str) -> None:
    stack = stack_of(service_text(f"ports: ['{port}']"))
    assert stack.refused == ({"web"} if port != "0:80" else set())


def test_needs_and_their_conditions() -> None:
    text = """
services:
  web:
    image: x
    labels: {aliyun.depends: "db, cache"}
    depends_on:
      job: {condition: service_completed_successfully}
      queue: {condition: service_started}
      gone: {required: false}
    links: [mail]
  db: {image: x}
  cache: {image: x, depends_on: [db]}
  job: {image: x}
  queue: {image: x}
  mail: {image: x}
"""
    stack = stack_of(text)
    web = stack.services[-1]
    assert web.name == "web"
    assert web.needs == (
        StackNeed("db"),
        StackNeed("cache"),
        StackNeed("job", StackCondition.COMPLETED),
        StackNeed("queue", StackCondition.STARTED),
        StackNeed("gone", StackCondition.SERVING, is_required=False),
        StackNeed("mail", StackCondition.STARTED),
    )
    assert [service.name for service in stack.services] == ["db", "job", "queue", "mail", "cache", "web"]
    assert [(problem.code, problem.severity) for problem in stack.problems if problem.code is Code.STACK_NEED] == [
        (Code.STACK_NEED, Severity.WARNING)
    ]


def test_a_circle_and_a_need_that_is_missing_refuse_those_services_alone() -> None:
    text = (
        "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]},"
        " c: {image: x, depends_on: [d]}, e: {image: x}}"
    )
    stack = stack_of(text)
    assert [service.name for service in stack.services] == ["e"]
    assert stack.refused == {"a", "b", "c"}
    assert {problem.code for problem in stack.problems} == {Code.STACK_NEED}


def test_a_service_comes_after_the_one_it_runs_beside() -> None:
    text = "services: {a: {image: x, environment: ['affinity:service==b']}, b: {image: x}}"
    assert [service.name for service in stack_of(text).services] == ["b", "a"]


def test_a_link_without_a_route_is_a_warning_with_the_label_to_paste() -> None:
    stack = stack_of("services: {web: {image: x, links: [db]}, db: {image: x, expose: ['5432']}}")
    (problem,) = [problem for problem in stack.problems if problem.code is Code.COMPOSE_LINK_WITHOUT_ROUTE]
    assert problem.remedy == "add the label mesh.routing.port_5432: db"


@pytest.mark.parametrize(("link", "is_known"), [("db", True), ("db:data", False), ("db:db", True)])
def test_a_link_under_a_name_that_no_name_server_knows_is_a_warning(link: str, *, is_known: bool) -> None:
    text = f"services: {{web: {{image: x, links: ['{link}']}}, db: {{image: x, labels: {{mesh.routing.port_1: db}}}}}}"
    codes = [problem.code for problem in stack_of(text).problems]
    assert codes == ([] if is_known else [Code.STACK_KEY_IGNORED])


@pytest.mark.parametrize("label", ["mesh.service", "mesh.stack", "aliyun.digest", "mesh.runs.shop.web"])
def test_reserved_labels_are_refused_from_a_file(label: str) -> None:
    stack = stack_of(service_text(f"labels: {{{label}: x}}"))
    assert [problem.code for problem in stack.problems] == [Code.RESERVED_LABEL]
    assert stack.services[0].container.labels == {}


STORM = """
zookeeper:
  image: zookeeper:3.4.8
  labels: {aliyun.scale: "1", aliyun.probe.url: "tcp://container:2181", aliyun.routing.port_2181: zookeeper}
  restart: always
  mem_limit: 512m
nimbus:
  image: storm:1.0.1
  command: storm nimbus
  links: [zookeeper]
  labels: {aliyun.depends: zookeeper, aliyun.routing.port_6627: nimbus}
supervisor:
  image: storm:1.0.1
  command: storm supervisor
  environment: ["affinity:service!=supervisor", "constraint:aliyun.node_index!=1"]
  labels: {aliyun.scale: "3", aliyun.depends: "zookeeper,nimbus", aliyun.log_store_sup: stdout, aliyun.log_ttl_sup: "3"}
"""
PROXY = """
services:
  proxy:
    image: redis-proxy
    ports: ["6379:6379"]
    environment: ["affinity:aliyun.lb.port_6379!=tcp://proxy_test:6379"]
    labels: {aliyun.lb.port_6379: "tcp://proxy_test:6379", aliyun.global: "true", aliyun.custom_addon: proxy}
"""
WORKERS = """
version: '2'
services:
  worker:
    image: celery
    environment: ["availability:az==3", "reschedule:on-node-failure", "LOG=1"]
    labels:
      aliyun.scale: "3"
      aliyun.rolling_updates: 'true'
      aliyun.rolling_updates.parallelism: "1"
      aliyun.auto_scaling.max_cpu: '70'
      aliyun.auto_scaling.min_memory: '30'
      aliyun.latest_image: "true"
      aliyun.log_store_celery: /x/*.log
      aliyun.log.timestamp: "true"
"""


@pytest.mark.parametrize("text", [STORM, PROXY, WORKERS])
def test_files_of_the_product_of_the_talk_are_read_without_an_unknown_label(text: str) -> None:
    stack = stack_of(text)
    assert stack.services
    # Files inside of containers are not collected: the label is known, and refused with what to write.
    errors = [each for each in stack.problems if each.severity is Severity.ERROR]
    assert [str(each) for each in errors if each.code is not Code.LABEL_NOT_SUPPORTED] == []
    assert [str(problem) for problem in stack.problems if problem.code is Code.UNKNOWN_LABEL] == []
