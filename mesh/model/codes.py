"""The codes of all messages that users see: `the name web.local is held by shop/web; ... [VM201]`.

A message carries its code from where it is made: a `Problem` and a `MeshError` have the attribute `code`, and a log
call passes `extra=Code.NAME_TAKEN.extra`. Users look a code up in `docs/errors.md`, which is generated from this module
by `python -m mesh.model.codes > docs/errors.md`; programs compare codes. The meaning of a code never changes, while the
wording of its messages may. The value of a code that is no longer used is never assigned again.
"""

import sys
from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType


@unique
class Code(Enum):
    """Identifies the subject of a message. The value is what users see; a duplicate value fails at import."""

    title: str
    """The heading in `docs/errors.md`."""
    _explanation: str

    def __new__(cls, value: str, title: str, explanation: str) -> "Code":
        """Make a member from its value, its title and the text of its section."""
        member = object.__new__(cls)
        member._value_ = value
        member.title = title
        member._explanation = explanation
        return member

    def __str__(self) -> str:
        return str(self.value)

    @property
    def explanation(self) -> str:
        """The meaning of the message and its remedy: one paragraph of Markdown without line breaks."""
        return " ".join(self._explanation.split())

    @property
    def extra(self) -> Mapping[str, "Code"]:
        """The argument `extra` of a logging call: it sets the attribute `code` of the record."""
        return MappingProxyType({"code": self})

    UNKNOWN_LABEL = (
        "VM101",
        "A label that does not exist",
        """
        A label begins with `mesh.` or `aliyun.` and is not in the [reference](labels.md). Most often it is
        mistyped; the message names the nearest one that exists. An unknown label has no effect: the service may
        be without its port or probe.
        """,
    )
    LABEL_NOT_SUPPORTED = (
        "VM102",
        "A label that is not handled yet",
        """
        The label exists on the platform that these labels come from, but vipmesh does not act on it yet. The
        message says what to do by hand instead; the label may stay.
        """,
    )
    LABEL_DIFFERS_BY_PREFIX = (
        "VM103",
        "A label under both prefixes, with different values",
        """
        `mesh.` and `aliyun.` mean the same, so a label may be set under both only with the same value. Neither
        is used until one of them is removed.
        """,
    )
    LABEL_WITHOUT_EFFECT = (
        "VM104",
        "A label without effect",
        """
        The label depends on something that is missing: a weight without a route, a probe's timeout without a
        probe, a minimum of connections without a maximum. Add what it depends on, or remove it.
        """,
    )
    LABEL_PORT = (
        "VM105",
        "The label's port or transport",
        """
        In `routing.port_<port>` the port is a number from 1 to 65535 without leading zeros, optionally followed
        by `/udp` or `/sctp`. Listen ports in values, such as `web.local:8080`, have the same range.
        """,
    )
    RESERVED_LABEL = (
        "VM106",
        "A reserved label in a compose file",
        """
        vipmesh writes `service`, `stack`, `digest` and `runs.*` itself, to what it creates. A file cannot set them:
        remove the label.
        """,
    )
    NOT_A_DNS_NAME = (
        "VM110",
        "A routing name that is not a DNS name",
        """
        A routing name consists of letters, digits, hyphens and underscores, up to 63 characters between two
        dots and 253 in all. Write names in other scripts in their IDNA form (`xn--...`). Wildcards and
        addresses are not names; a fixed address belongs in `routing.vip`. A name without a dot gets the domain
        of the setting `[dns] domain`.
        """,
    )
    NAME_WITH_PATH_OR_SCHEME = (
        "VM111",
        "A routing name with a path or a scheme",
        """
        The mesh routes connections, not requests: it never sees a path. Write the name alone, or with `http://`
        (port 80), `https://` (port 443), `tcp://`, `udp://` or `sctp://`. To route by path, put a reverse proxy
        behind the name.
        """,
    )
    LISTEN_PORT_CLASH = (
        "VM112",
        "Two labels for the same port of the VIP",
        """
        All names of a service share its VIP, so a listen port can lead to only one container port. Give the
        second one another listen port, `web.local:8081`, or declare it as a separate service.
        """,
    )
    PUBLISHED_PORT_CLASH = (
        "VM113",
        "Two labels that publish the same port",
        """
        A published port can lead to only one container port of one service. Write another number, or `auto` to
        have one assigned.
        """,
    )
    FIXED_VIP_UNUSABLE = (
        "VM114",
        "A fixed VIP that cannot be one",
        """
        `routing.vip` is a plain unicast address of the pool in the setting `[vip] pool`. Without the label a
        VIP is assigned, and the service keeps it permanently, so few services need the label.
        """,
    )
    SCHEDULER_OR_FLAGS = (
        "VM115",
        "A scheduler or its flags",
        """
        `routing.scheduler` is a scheduler of IPVS: `rr wrr lc wlc sh mh sed nq dh`. The flags `fallback` and
        `port` apply to the hashing schedulers `sh` and `mh`. [Data planes](dataplane.md) lists which of them
        work without IPVS.
        """,
    )
    FORWARDING_METHOD = (
        "VM116",
        "A forwarding method that does not fit",
        """
        `tunnel` and `direct` do not change the destination port of a packet, so listen port, published port and
        container port must be equal; `masquerade`, the default, may change it. See
        [Forwarding](labels.md#forwarding).
        """,
    )
    VALUE_OUT_OF_RANGE = (
        "VM117",
        "A number or time out of range",
        """
        The message states the bounds. Times are seconds without a unit: `2`, not `2s`; write fractions with a
        dot. A minimum of connections must not be above its maximum. A label is text that can be written as UTF-8.
        """,
    )
    RELEASE_NAME = (
        "VM118",
        "A release's name",
        """
        Up to 64 letters, digits, dots, hyphens and underscores, since it is shown in metrics and on the command
        line.
        """,
    )
    PROBE_UNUSABLE = (
        "VM120",
        "A probe that cannot be used",
        """
        `probe.url` is `http://container[:port][/path]`, `https://...`, `tcp://container:port`,
        `udp://container:port` with `probe.send`, or `grpc://container:port[/service]`; the word `container`
        stands for the endpoint's address, since each endpoint is probed separately. `probe.cmd` is a command of
        at most 4000 characters, `probe.expect_status` a list such as `200-399,404`. While the label is refused,
        the service has no probe, and its endpoints count as healthy while they run.
        """,
    )
    PROBE_LONGER_THAN_INTERVAL = (
        "VM121",
        "A probe that takes longer than its interval",
        """
        The next check may be due before the previous one has ended. It then starts when the previous one has ended,
        so the actual interval is longer than the setting. Shorten the timeout or lengthen the interval.
        """,
    )
    PROBE_COMMAND_WITHOUT_ENGINE = (
        "VM122",
        "A probe command without a container engine",
        """
        A container engine runs `probe.cmd` inside the container. Endpoints of `x-endpoints` have no engine:
        probe them by URL.
        """,
    )
    WRITTEN_TWICE = (
        "VM123",
        "Something is written twice",
        """
        A key, a label, a name or an endpoint is written twice. If the two values differ, neither is used,
        because either could be meant.
        """,
    )
    LABELS_DIFFER_BETWEEN_INSTANCES = (
        "VM124",
        "Instances whose labels differ",
        """
        The containers of one service declare it differently, which is normal for a moment during a rolling
        update. Probe, weight and release always apply per container. Ports, scheduler, client affinity and VIP
        are shared by all clients: those in force stay until more than half of the serving containers declare
        others, or none of the serving ones declares them any more. If the message stays, some of the containers
        were started from another file.
        """,
    )
    PROBE_REQUEST_OR_EXPECTATION = (
        "VM125",
        "A request or an expectation of a probe",
        """
        A method, host, header, text or datagram that a request cannot contain, or that a response cannot
        contain. The message says what was written and what to write; [Probes](probes.md) lists all labels.
        While the label is refused, the default is used.
        """,
    )
    IMAGE_LABELS_IGNORED = (
        "VM126",
        "Labels of an image do not count",
        """
        The image of a container has labels of the mesh, and the container has them with the same values. The
        author of an image must not decide which service its containers join, so these labels do not count. The engine
        cannot tell whether the container repeats them. Write them on the container alone, or set `[source.docker]
        image_labels = true` if all images that run here are trusted.
        """,
    )
    REQUIRED_LABEL_MISSING = (
        "VM127",
        "A container lacks a required label",
        """
        `[source.docker] require` lists labels that a container must have to be an instance, and this container
        lacks one of them. Labels of its image count only with `[source.docker] image_labels = true`.
        """,
    )
    SWARM_TASK_UNKNOWN = (
        "VM128",
        "Labels of swarm on a container that is no task",
        """
        The labels of a container say that it is a task of a service, and the engine, a manager of the swarm, knows
        no task with this container. The container is left out. The labels were written by hand: remove them.
        """,
    )
    COMPOSE_NOT_YAML = (
        "VM150",
        "A compose file that is not YAML, or exceeds a limit",
        """
        The file cannot be read, is not YAML, or exceeds a limit that bounds the cost of parsing. The message
        names the line where the parser noticed it, so the mistake is there or just before. A running daemon
        keeps the last list in force.
        """,
    )
    COMPOSE_STRUCTURE = (
        "VM151",
        "A compose file with another structure",
        """
        The file is YAML, but not a compose file: services are a mapping of names to mappings, labels are a
        mapping or a list of `KEY=VALUE`, and values are text.
        """,
    )
    COMPOSE_NOT_FOLLOWED = (
        "VM152",
        "A reference that is not followed",
        """
        `extends`, `include`, `label_file` and `env_file` are followed to regular files of this host. This one cannot
        be: the file is missing or cannot be read, it leads back to itself, it does not have the service, or it is not
        on this host. The same is said of two declarations that cannot be merged, and of a YAML tag other than `!reset`
        and `!override`. Only the service with the reference is refused; a running daemon keeps its last instances.
        An `include` that cannot be followed keeps the whole last list in force.
        """,
    )
    COMPOSE_VALUE_CHANGED_BY_YAML = (
        "VM153",
        "A value that YAML changes",
        """
        Without quotes YAML reads `1.10` as a number and writes it as `1.1`. Labels are text: put the value into
        quotes.
        """,
    )
    COMPOSE_VARIABLE = (
        "VM154",
        "A variable in a compose file",
        """
        `${NAME}` is replaced from the environment and from the file `.env` next to the compose file. A variable
        that is not set counts as empty, which is rarely intended: set it, or write a default, `${NAME:-v1}`.
        Write `$$` for a dollar sign.
        """,
    )
    COMPOSE_ENDPOINT_ADDRESS = (
        "VM155",
        "An endpoint's address",
        """
        `x-endpoints` lists addresses of single instances, with a port where that differs from the container's.
        Names are not resolved, and an address that no instance can have (unspecified, multicast) is refused.
        """,
    )
    COMPOSE_ENDPOINT_PORT = (
        "VM156",
        "An endpoint's port stands for several",
        """
        The port of an entry in `x-endpoints` is where every routed and published container port of that endpoint is
        reached. With two such ports, connections to both lead to the same place, which is rarely intended. Write
        the address without a port, so that each container port is reached at its own number, or write one service
        for each port. The same holds for a `probe.url` with the default port of its scheme, if that is not one of
        these ports: the endpoint's port is probed in its place.
        """,
    )
    COMPOSE_KEY = (
        "VM157",
        "A key of a compose file without effect",
        """
        The key is not in the compose specification, or the mesh cannot act on it where it stands: labels below
        `deploy.labels` are labels of no container. [The table](compose.md) has every key.
        """,
    )
    COMPOSE_ENV_FILE = (
        "VM158",
        "A file of variables or labels",
        """
        `.env`, `env_file` and `label_file` have a line `NAME=VALUE` for each value, with the quotes and variables of
        the compose specification. The message names the line, and never shows a value.
        """,
    )
    COMPOSE_LINK_WITHOUT_ROUTE = (
        "VM159",
        "A name that others use and nothing serves",
        """
        A service names another one of the project in `links` or `external_links`, and that one has no label with the
        name. The mesh serves routing names only: add the label that the message shows.
        """,
    )
    NAME_TAKEN = (
        "VM201",
        "A name that another service holds",
        """
        Two services declare the same routing name. The service that came first keeps it, so the name never
        moves back and forth. The second service has no VIP if this is its first name; otherwise it is not
        reachable under this name. Give it another name, or remove the label from the first service: the second
        one takes over the name and its VIP when `[claims] grace` is over. A holder that is gone keeps the name for
        longer, see [claims](claims.md). `vipmesh explain NAME` shows both.
        """,
    )
    VIP_TAKEN = (
        "VM202",
        "A VIP that another service holds",
        """
        The label `routing.vip` requests an address that belongs to another service, is outside the pool, or is
        reserved (the first two addresses of the pool and its last). While the label requests it, the service
        has no VIP. Without the label, the VIP that the service holds is outside the pool, because the pool was
        changed or the claim was written by hand: the service is not programmed until the pool contains that
        VIP, the label requests another one, or the claim is deleted. A VIP belongs to its service's name
        permanently, even while that service is gone; `docs/store.md` says how to delete a claim.
        """,
    )
    PUBLISHED_PORT_TAKEN = (
        "VM203",
        "A published port that another service holds",
        """
        A published port is the same on every worker, so it leads to one container port of one service in the
        whole cluster. Publish another port, or `auto`.
        """,
    )
    POOL_EXHAUSTED = (
        "VM204",
        "No VIP or published port is left",
        """
        Every address of `[vip] pool`, or every port of `[publish] ports`, is assigned. Services that are gone
        keep theirs for a time ([claims](claims.md)). Enlarge the pool or the range on all workers, or delete claims
        that are no longer needed (`docs/store.md`).
        """,
    )
    PUBLISHED_PORT_IN_USE = (
        "VM205",
        "A published port that a program listens on",
        """
        A program on this worker listens on the port, and publishing it would take the port away from that
        program: publishing port 22 would lock you out. The port is not published on this worker, but it is on
        the others. `ss -lnp sport = PORT` shows the program.
        """,
    )
    WORKER_NAME_TAKEN = (
        "VM206",
        "Two daemons with the same name",
        """
        Two daemons of the cluster run with the same `[node] name`, often after a virtual machine was copied.
        The later one has the name; the earlier one continues to forward but no longer registers endpoints. Give
        each daemon its own name and restart the earlier one.
        """,
    )
    NAME_NOT_ALLOWED = (
        "VM207",
        "A name outside the allowed domains",
        """
        A name that the mesh serves hides the name of the same spelling in the rest of the world from every
        client, so labels may only claim names in the domains of `[names] allow` and in the cluster domain. Names
        in a domain of `[dns.forward]`, in reverse zones, and the name server's own names are never served. The
        message has the line to add. A name that the cluster served before it was upgraded to a version with this
        rule goes on being served, and is reported as a warning.
        """,
    )
    CLAIM_QUOTA = (
        "VM230",
        "More names or published ports than the quota",
        """
        A container or an owner (`project/service`) declares more routing names or published ports than `[claims]`
        permits: `container_names`, `container_ports`, `owner_names`, `owner_ports`. What it holds already stays;
        only the one that is named is refused. An owner at its quota of names gets a new one in the place of one
        that it has not declared for `[claims] grace`.
        """,
    )
    CLAIM_ACTION_REFUSED = (
        "VM231",
        "A claim that cannot be freed or moved",
        """
        `vipmesh claims free` deletes only claims that no service declares: a claim that is deleted under a running
        service would be made again at once. `vipmesh claims move` needs a name that somebody holds, and an owner
        as `project/service`. [Claims](claims.md) describes both.
        """,
    )
    CLAIM_REWRITTEN = (
        "VM232",
        "A claim of a running service that was rewritten",
        """
        The record of a name, VIP or published port was changed or deleted although the service that holds it runs
        on this worker. The worker puts it back, after longer pauses if that happens again, and reports it for ten
        minutes. Workers of vipmesh do not do that: somebody else writes to the store. Give each worker a user and
        a role of its own in etcd ([claims](claims.md#a-claim-that-is-rewritten)).
        """,
    )
    NO_ROLES = (
        "VM233",
        "Roles that cannot be printed",
        """
        `vipmesh cluster roles` prints the lines that give each worker a role of its own in etcd. The embedded
        store is the file of one worker and has none; and the name of a worker is that of its setting
        `[node] name`.
        """,
    )
    ENGINE_UNREACHABLE = (
        "VM250",
        "The container engine does not answer",
        """
        The engine at `[source.docker] socket` does not answer, or not in time. The last list of containers
        stays in force, so traffic continues, and probes still take failed endpoints out of traffic. Where the
        daemon may see the processes of containers, those that end are left out and those that begin again come
        back meanwhile (docs/docker.md). Check that the engine runs (`systemctl status docker`) and that the
        daemon's user may open the socket.
        """,
    )
    CONTAINER_UNUSABLE = (
        "VM251",
        "A container that cannot be an endpoint",
        """
        The container has labels of the mesh but no address that traffic can be sent to: it has no network, it
        shares the network of a container that does not run, or other workers have no route to its network and
        its port is not published. The message says which; [Docker](docker.md) explains where endpoints are
        reached.
        """,
    )
    CONTAINER_NOT_STOPPED = (
        "VM252",
        "A container that cannot be stopped or signalled",
        """
        The engine refused a request of `vipmesh stop`, or of a drain before a stop; the message contains the
        engine's own text. The container may have ended by itself in the meantime.
        """,
    )
    DRAIN_TIMEOUT = (
        "VM253",
        "A drain that takes too long",
        """
        Connections to the endpoint did not end within `[dataplane] drain_timeout`, or within the time that
        `docker stop` allows, and were cut. A longer `--stop-timeout` (`stop_grace_period` in Compose) gives
        them more time; a client that never closes its connection needs a limit of its own.
        """,
    )
    NO_SUCH_ENDPOINT = (
        "VM254",
        "No such container or endpoint",
        """
        `drain`, `undrain` and `stop` apply to endpoints on this worker: give the name or ID of a container, or
        the ID of an endpoint that `vipmesh status` shows. For an endpoint on another worker, run the command on
        that worker.
        """,
    )
    PROBE_COMMAND_STUCK = (
        "VM255",
        "A probe command that does not end",
        """
        A probe command exceeded its timeout and could not be ended, or did not even start. The engine is
        overloaded, or the process is stuck in the kernel. Until it has ended, no new command is started in that
        container.
        """,
    )
    NO_SOURCE = (
        "VM256",
        "No source of instances",
        """
        Neither `[source.docker] socket` nor `[source.compose] files` is set, so this worker has no endpoints.
        It still routes to those of other workers. What it registered before stays in force.
        """,
    )
    MASS_FAILURE = (
        "VM257",
        "A mass failure is suspected",
        """
        More than half of the endpoints of a service, or of all that one worker probes, stopped answering at
        about the same time. A cause that they share is more likely than many separate failures, so vipmesh
        stops taking endpoints out of traffic at the floor, `[probes] floor`. Check the network of the worker
        that probes, and what the endpoints depend on. [Probes](probes.md) has the rules, and how to make
        traffic follow every verdict.
        """,
    )
    ENGINE_EVENT_UNREADABLE = (
        "VM268",
        "An event of the container engine that cannot be read",
        """
        The engine sent an event that is no valid JSON, is too large, or has another form than its API describes.
        It counts as a reason to list the containers, and nothing else depends on it. Most often a container has
        extraordinary labels; `docker events --since 10m` shows the events.
        """,
    )
    UNKNOWN_SETTING = (
        "VM301",
        "A setting that does not exist",
        """
        The file, or an environment variable that begins with `VIPMESH_`, names a setting or a table that does
        not exist, even an empty one; the message suggests the nearest one. The daemon does not start, because
        the intended setting would silently have no effect. [Settings](settings.md) lists all of them.
        """,
    )
    SETTING_VALUE = (
        "VM302",
        "The value of a setting",
        """
        The value does not have the form that this setting requires; the message says what to write. In an
        environment variable, separate the items of a list by commas.
        """,
    )
    SETTINGS_FILE_UNUSABLE = (
        "VM303",
        "A settings file that cannot be used",
        """
        The file cannot be read, or is not TOML. Without `-c` the file is `/etc/vipmesh.toml`; if that does not
        exist, the defaults and the environment apply.
        """,
    )
    SETTINGS_CONTRADICT = (
        "VM304",
        "Settings that contradict one another",
        """
        Each setting is valid on its own, but not together with the others: a domain to forward is one that this
        cluster answers itself, or the name server would forward to itself.
        """,
    )
    ADMIN_API_UNPROTECTED = (
        "VM305",
        "The admin API would be open to everyone",
        """
        Every client of the admin API can drain and stop containers. Over TCP it requires authentication: set
        `[admin] token_file`, or `client_ca` together with `cert`. On a unix socket the mode of the file
        controls access.
        """,
    )
    SETTINGS_NOT_APPLIED = (
        "VM306",
        "New settings that need a restart or cannot be applied",
        """
        On SIGHUP the daemon applies new settings in place. Settings that cannot be used change nothing; if the
        daemon fails to start with the new settings, it falls back to the previous ones. Restarting the user
        space proxy would end its connections, so with it new settings wait for a restart.
        """,
    )
    VIP_POOL_OVERLAPS = (
        "VM350",
        "The VIP pool overlaps the host's network",
        """
        A VIP would hide a real host with the same address. The daemon serves on, and watches routes, addresses
        and the networks of the container engine: a VIP in an overlapping network that is bound already stays, and
        any other is not bound on this worker ([VM591](#vm591-a-vip-in-a-network-of-this-host)). Remove the network, or
        move `[vip] pool` to one that overlaps nothing on any worker; the message proposes one that is free on this
        host. New settings with a pool that overlaps are not applied.
        """,
    )
    DATA_PLANE_UNAVAILABLE = (
        "VM351",
        "A data plane that this host does not have",
        """
        `[dataplane] driver` selects a data plane that the kernel does not offer, or that is not permitted; the
        message contains the reason. `auto` uses the next best one and logs it.
        """,
    )
    DEMO_CANNOT_START = (
        "VM352",
        "The demo cannot start",
        """
        `vipmesh demo` runs instances on loopback addresses, so its compose file needs `x-endpoints` in
        127.0.0.0/8 whose ports are free. Another demo may already be running.
        """,
    )
    SERVICE_MANAGER_UNREACHABLE = (
        "VM353",
        "The service manager cannot be notified",
        """
        `NOTIFY_SOCKET` is set but cannot be written to, so systemd does not learn that the daemon is ready, and
        may end it. In a container, do not pass that variable on.
        """,
    )
    STORE_UNREACHABLE = (
        "VM401",
        "etcd is not available",
        """
        No member of etcd answers as it should; the message gives the reason for each. The last view stays in
        force: traffic, probes and names continue, no new VIPs, names or ports are assigned, and this worker
        still uses changes of its own endpoints. Check that a majority of the members runs (`etcdctl endpoint
        status --cluster`) and that their JSON gateway is enabled.
        """,
    )
    STORE_REFUSES = (
        "VM402",
        "etcd refuses a request",
        """
        etcd answers but refuses the request: the user or password is wrong, the user lacks a permission, or the
        disk quota is used up. The message contains the text of etcd and what to do. [The store](store.md) lists
        what etcd needs.
        """,
    )
    LEASE_LOST = (
        "VM403",
        "The lease of this worker",
        """
        The records of a worker depend on a lease that it renews. The lease ended although the worker is alive:
        etcd was not available for longer than `[store] lease_ttl`, or the host was suspended. The worker
        registers everything again at once; in the meantime the other workers may have sent no traffic to it.
        """,
    )
    STORE_IN_USE = (
        "VM404",
        "A store that another process uses",
        """
        The embedded store serves one worker, and the process in the message has locked its file. A second
        daemon, or a `vipmesh teardown` while the daemon runs, is refused. Use etcd for several workers.
        """,
    )
    STORE_UNUSABLE = (
        "VM405",
        "A store that cannot be used",
        """
        The file of the embedded store cannot be opened or written: the directory is missing or not writable for
        this user, the disk is full, or the file is damaged. The message contains the text of SQLite or of the
        system. Without a store the daemon does not start; a running daemon keeps the last view in force.
        """,
    )
    STORE_CREDENTIALS = (
        "VM406",
        "Secrets and certificates of the store",
        """
        `[store] user` needs a password (better in `VIPMESH_STORE_PASSWORD` than in the file), and `ca`, `cert`
        and `key` are PEM files that this user can read. A client certificate for etcd has an empty CN. The
        files are read again when no connection can be made, so a renewed certificate needs no restart; if a new
        file cannot be used, that is logged and the previous one stays in use.
        """,
    )
    RECORD_UNREADABLE = (
        "VM407",
        "A record that cannot be read",
        """
        A key of the store has a value that this version does not understand, or that a kernel cannot accept.
        The record is ignored; all others are used. Delete the key, or restart the worker that wrote it, which
        then writes it again.
        """,
    )
    SAVED_VIEW = (
        "VM408",
        "The saved view",
        """
        With etcd, the last view of the cluster is saved in `[store] saved_view`, for a start while etcd is not
        available. The message says that it was used, or that it cannot be written or read. A damaged file can
        be deleted; it is written again.
        """,
    )
    STORE_LOST_DATA = (
        "VM409",
        "The store has lost data",
        """
        etcd was emptied, or an older backup was restored. The workers write back every claim that they know
        before they claim anything new, so that VIPs stay as they were. A claim that another service got in the
        meantime cannot be restored; the service that lost it is refused and shown.
        """,
    )
    STORE_NOT_READ = (
        "VM410",
        "The store cannot be read",
        """
        The store does not answer; what was read last stays in force. If it did not answer at the start, the
        daemon does not know which endpoints an operator had drained or given a weight: check `vipmesh status`,
        and do it again.
        """,
    )
    FROZEN = (
        "VM411",
        "A part is frozen",
        """
        A part that the daemon reads from does not answer. Its last good state stays in force; it is never
        treated as empty. The message says which part and why; `vipmesh status` lists it as `frozen` until it
        answers again.
        """,
    )
    RECORDS_CHANGED_OUTSIDE = (
        "VM412",
        "Records of this worker were changed outside vipmesh",
        """
        The records under this worker's name in etcd are not what it wrote last: keys were changed or deleted by
        hand, or etcd applied an older write late. The worker wrote them again. If the message repeats, find out
        which other program writes there; the records are repaired every two seconds.
        """,
    )
    ETCD_CLUSTERS_DIFFER = (
        "VM413",
        "Members of different etcd clusters",
        """
        `[store] url` lists members of different etcd clusters, and each cluster would assign the same VIPs. The
        cluster that more than half of the members belong to is used, and the other members are not; without
        such a cluster the store counts as not available. The numbers are those of `etcdctl endpoint status -w
        fields`. A newly created etcd cluster is used as soon as more than half of the members in the URL belong
        to it.
        """,
    )
    ENDPOINT_NOT_PERMITTED = (
        "VM414",
        "An endpoint of another worker that is not used here",
        """
        A record of another worker registers an endpoint at an address that means another host on each worker
        (loopback, link-local), that is a VIP, that is one of this host's own, or that is outside `[cluster]
        endpoint_networks`. This worker sends it neither traffic nor probes: whoever can write the store could
        otherwise make every worker connect to itself. Endpoints of `x-endpoints` at such an address serve their
        own worker alone. If nobody knows the record, somebody else writes into the store.
        """,
    )
    WORKER_ISOLATED = (
        "VM451",
        "This worker may be cut off",
        """
        This worker reaches less than half of the other workers and store members, and other workers that have
        answered do not answer any more. Its own network is the likelier cause, so a service without other endpoints
        keeps those that this worker cannot reach. If etcd does not answer either, the message says so. Check the
        network of this host; [The cluster](cluster.md) explains what happens meanwhile.
        """,
    )
    LEASE_ENDED_WORKER_ANSWERS = (
        "VM452",
        "The store has lost a worker that answers",
        """
        The lease of that worker has ended, as if the worker were gone, but the worker answers: it is, or was, cut
        off from etcd. Its endpoints stay in traffic and are probed from here. Check that it reaches etcd: its own
        `vipmesh status` says how etcd answers it.
        """,
    )
    WORKER_UNREACHABLE = (
        "VM453",
        "A worker is out of reach",
        """
        Neither the daemon of that worker nor those of its endpoints that the message names have answered this
        worker several times in a row. They get no new connections from here until they answer again. Check that
        the host runs and is connected; if other workers reach it, check the path from this one.
        """,
    )
    PEER_LISTENER_UNAVAILABLE = (
        "VM454",
        "The other workers cannot ping this one",
        """
        The address where this worker must answer the others is in use or is not an address of this host, or the
        names of the store's members do not resolve. Nothing else fails: if this worker is lost, the others
        notice it when its lease ends, some seconds later. See `[peers] listen` in [Settings](settings.md).
        """,
    )
    WORKER_DAEMON_GONE = (
        "VM455",
        "The daemon of a worker is gone",
        """
        Its lease has ended and it does not answer, but its endpoints do: the daemon is gone, not the host. The
        other workers continue the probes of these endpoints for a minute; then the endpoints are taken out of
        traffic until the daemon is back, as endpoints without a probe already are.
        """,
    )
    NO_IPVS = (
        "VM501",
        "No IPVS",
        """
        The kernel has no IPVS, or its module cannot be loaded. `modprobe ip_vs` on the host loads it; the cloud
        kernels of some distributions are built without it. With `[dataplane] driver = "auto"` nftables forwards
        instead, with fewer schedulers.
        """,
    )
    NOT_PERMITTED = (
        "VM502",
        "Not permitted",
        """
        The daemon lacks a capability: `CAP_NET_ADMIN` to program the kernel, `CAP_NET_BIND_SERVICE` for ports
        below 1024. systemd gives them with `AmbientCapabilities`, Compose with `cap_add`. A container must also
        use the network of the host. `vipmesh doctor` shows which capabilities the daemon has.
        """,
    )
    NETLINK_FAILED = (
        "VM503",
        "A netlink request failed",
        """
        The kernel did not answer a request about its tables, or the answer is not understood. The request is
        repeated in the next pass. If the message stays, check `dmesg`, and that the sandbox
        (`RestrictAddressFamilies` of systemd, seccomp) allows `AF_NETLINK`.
        """,
    )
    NFT_FAILED = (
        "VM504",
        "nft failed",
        """
        Source NAT and the nftables data plane use the program `nft`. It is missing, its request was refused, or
        it hangs; the message contains its first line. Install it (`apt-get install nftables`); the kernel
        modules are `nf_tables`, `nft_ct`, `nft_masq` and those in [Data planes](dataplane.md).
        """,
    )
    VIP_INTERFACE = (
        "VM505",
        "The interface of the VIPs",
        """
        A VIP cannot be added to `mesh0`, or the interface cannot be read. Another program, such as
        NetworkManager or systemd-networkd, may manage the interface: configure it to ignore `mesh0`. The VIP's
        name does not resolve until it is bound.
        """,
    )
    OPERATION_REFUSED = (
        "VM506",
        "A virtual or real server that the data plane refuses",
        """
        One operation was refused; all others were carried out. Usually the kernel lacks the module of the
        scheduler (`modprobe ip_vs_mh`), or the label requests something that only IPVS supports. The operation
        is repeated at the next audit, 10 s later at the latest.
        """,
    )
    OUTSIDE_VIP_POOL = (
        "VM507",
        "Outside the VIP pool",
        """
        The data plane changes only the VIP pool and the published ports, so that other users of IPVS on the
        host are safe. After a change of the pool, services with an old fixed VIP need a new one.
        """,
    )
    CHANGED_OUTSIDE = (
        "VM508",
        "The data plane was changed outside vipmesh",
        """
        Something other than vipmesh changed what the daemon had programmed, and the daemon repaired it. One
        line per repair says what was changed. If the message repeats, another program changes it repeatedly: a
        second load balancer, a configuration management tool, or a firewall that flushes all rules.
        """,
    )
    LEFT_BY_EARLIER_START = (
        "VM509",
        "State of a previous driver cannot be removed",
        """
        The daemon ran with another driver before, and the state of that driver in the kernel cannot be removed.
        Until it is removed, both forward to the same endpoints. The message contains the reason.
        """,
    )
    IPVS_TIMEOUT = (
        "VM510",
        "An IPVS timeout cannot be set",
        """
        By default IPVS drops a TCP connection that is idle for 900 s, and the longer timeout could not be set.
        Connections that are idle for longer may break; keepalives of the application at intervals below 15
        minutes help.
        """,
    )
    NFTABLES_CONNECTIONS_UNSEEN = (
        "VM511",
        "nftables: connections cannot be listed",
        """
        The kernel does not list the connections that it tracks, or the label requests something that nftables
        does differently; the message says which. Without the list, a drain waits for its timeout instead of the
        last connection. Run `modprobe nf_conntrack_netlink` on the host.
        """,
    )
    KERNEL_SETTING = (
        "VM550",
        "Kernel settings",
        """
        A kernel setting must have another value for VIPs to work, and the daemon cannot write it, as in most
        containers. Write the lines of the message to `/etc/sysctl.d/60-vipmesh.conf` on the host and run
        `sysctl --system`.
        """,
    )
    SOURCE_NAT = (
        "VM551",
        "Source NAT",
        """
        Replies of remote endpoints, of a container that connects to itself, and to the host's own connections
        must return through this worker. The nftables table `vipmesh` ensures this and cannot be set up; until
        then such connections hang. [Source NAT](source-nat.md) says which paths need it.
        """,
    )
    FIREWALL_REPORTED = (
        "VM560",
        "The firewall drops translated connections",
        """
        A firewall of this host drops connections to VIPs or published ports, and leaves no place where the daemon
        may open it, or `[host] firewall` is `report`. The message has the line to type; it goes away once the
        line is in force. [Firewall](firewall.md) says what each data plane needs.
        """,
    )
    FIREWALL_ENGINE_SETTING = (
        "VM561",
        "The container engine accepts no mark",
        """
        Docker's nftables backend has no chain for rules of others. It accepts packets with the mark of its setting
        `bridge-accept-fwmark`, and that is not set: connections from other hosts and between container networks
        are dropped. Write the line of the message to `/etc/docker/daemon.json` and restart the engine. The daemon
        uses whatever mark is set there.
        """,
    )
    FIREWALL_UNREADABLE = (
        "VM562",
        "The firewall cannot be read or changed",
        """
        The program `iptables` is missing, not permitted, or refuses. Rules of the backend `legacy` need
        `CAP_NET_RAW` beside `CAP_NET_ADMIN`, those of the backend `nft` need the program `iptables-nft`
        (`apt-get install iptables`). Until then this host is in report mode: the message has the line that opens
        the firewall by hand.
        """,
    )
    FIREWALL_FAILED = (
        "VM563",
        "The firewall could not be opened",
        """
        A command for the firewall failed or did not end in time. It is repeated at the next audit, 10 s later.
        Everything else goes on; connections from other hosts and between container networks may be dropped until
        it succeeds.
        """,
    )
    REQUESTS_DO_NOT_ARRIVE = (
        "VM571",
        "Requests do not arrive",
        """
        The service is programmed and an endpoint is healthy, but connections from the named network are not
        answered: most often a packet filter of the host drops the request or its reply. The remedy names the line
        that helps on this host. `vipmesh test NAME` sends packets from every network and says where they are lost.
        """,
    )
    NAMESPACE_NOT_ENTERED = (
        "VM572",
        "A network of containers cannot be entered",
        """
        A test of requests from a network of containers enters the network namespace of one of its containers, which
        needs root on the host (`CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`). In vipmesh's image, `vipmesh test` runs a
        short-lived container instead.
        """,
    )
    PEERS_DROPPED = (
        "VM573",
        "A firewall drops what other workers send",
        """
        A rule of iptables on the worker that runs the endpoint drops the connections that other workers send it. The
        probes of that worker do not meet the rule, so the endpoint stays healthy, while clients of the other workers
        get no answer. The message names the rule, since when it is there, and the line that removes it. Each worker
        judges its own rules as soon as they change and tells the others, whose `vipmesh status` and `vipmesh explain`
        say it, too. Only what is dropped for certain is reported: [requests that do not arrive](arrival.md).
        """,
    )
    HAIRPIN = (
        "VM581",
        "A container that reaches itself",
        """
        Where bridged packets are filtered, as on a host with Docker, a container gets no answer from a VIP that
        leads back to itself, unless the bridge port of the container has the hairpin flag. The flag cannot be
        set or cleared. Run the line of the message on the host, or let the daemon do so by CAP_NET_ADMIN.
        [Source NAT](source-nat.md) explains when the flag is needed.
        """,
    )
    VIP_WITHHELD = (
        "VM591",
        "A VIP in a network of this host",
        """
        The VIP belongs to a network that this host also reaches otherwise, by a route or on an interface. Binding
        it would take the traffic of the real host with that address, so on this worker neither the VIP nor its
        names are served; published ports are. Free the network or move the pool, as
        [VM350](#vm350-the-vip-pool-overlaps-the-hosts-network) says; a label `routing.vip` moves one service.
        """,
    )
    OUTGOING_PORTS = (
        "VM592",
        "Published ports among the ports of outgoing connections",
        """
        The kernel takes the ports of outgoing connections from `net.ipv4.ip_local_port_range`, and a published port
        is one of them. IPVS takes the answer to a connection from that port for a request to the published port:
        the connection hangs. Reserve the ports by `net.ipv4.ip_local_reserved_ports`, or publish others.
        """,
    )
    REVERSE_PATH_FILTER = (
        "VM593",
        "Reverse path filtering drops replies",
        """
        A container on several networks replies by the network of its default route, whichever of its addresses was
        asked. With `rp_filter` at 1 (strict) the kernel drops a reply that comes by another interface than the one
        by which its sender is reached. The kernel takes the higher of the values of `all` and of the interface, so
        `net.ipv4.conf.all.rp_filter = 2` (loose) suffices; so does a container that is on one network only.
        """,
    )
    BRIDGE_FILTERING = (
        "VM594",
        "Replies on a bridge are not tracked",
        """
        A container on several networks replies to a client on one of them directly over the bridge. Such a reply
        keeps the container's address, which the client did not ask, unless bridged packets pass connection
        tracking: `net.bridge.bridge-nf-call-iptables = 1`, a setting of the module br_netfilter. It matters only for
        networks whose engine does not rewrite the source of what leaves them.
        """,
    )
    CONNTRACK_FULL = (
        "VM595",
        "The table of tracked connections is nearly full",
        """
        The kernel data planes track every connection. When all entries of the table are in use, the kernel drops new
        connections of the whole host, and says `nf_conntrack: table full, dropping packet` in `dmesg`. Raise
        `net.netfilter.nf_conntrack_max`; an entry takes about 300 bytes.
        """,
    )
    ENGINE_FIREWALL = (
        "VM596",
        "The container engine drops packets to containers' own addresses",
        """
        Other workers send to containers' own addresses with `[source.docker] endpoint_address = "container"`, and
        Docker drops that unless the container publishes the port; from version 28 on, it drops all that comes by
        another interface than the container's bridge. Where the rules of this host can be read, a problem names each
        network and the services whose endpoints are dropped there; else Docker 28 or later suffices for it.
        Publish the ports and let endpoints be reached there, or make the network with the gateway mode
        `nat-unprotected`: [where an endpoint is reached](docker.md#where-an-endpoint-is-reached).
        """,
    )
    ENGINE_RESTART = (
        "VM597",
        "Containers end with the container engine",
        """
        Without `live-restore`, a restart of the Docker daemon ends all of its containers, so an update of the engine
        takes every endpoint of this worker down. It is not reported in swarm mode, which excludes live-restore:
        there, drain the worker before an update.
        """,
    )
    HOST_UNREADABLE = (
        "VM599",
        "The facts of the host cannot be read",
        """
        The kernel did not tell routes and addresses, so overlaps with the VIP pool and other facts of the host are
        not followed; the last ones stay in force. Check `dmesg`, and that the sandbox (`RestrictAddressFamilies` of
        systemd, seccomp) allows `AF_NETLINK`.
        """,
    )
    DNS_CANNOT_LISTEN = (
        "VM601",
        "The name server cannot listen",
        """
        An address of `[dns] listen`, or the resolver for containers, is in use, not permitted or does not
        exist. Often systemd-resolved or dnsmasq uses port 53: `ss -lntup sport = :53` shows it, and `vipmesh
        doctor` says how to free the port. An address that appears later is served from then on.
        """,
    )
    UPSTREAM_UNREACHABLE = (
        "VM602",
        "An upstream does not answer",
        """
        A name server that other names are forwarded to did not answer several times in a row. Other upstreams
        are used first until it answers; names of the mesh are not affected. If it is the only one, stale
        answers are served for a while.
        """,
    )
    UPSTREAM_LOOP = (
        "VM603",
        "A loop of name servers",
        """
        The name server forwards to a server that forwards back to it, so a query would loop. That upstream is
        not used. Set `[dns] upstream` to servers that resolve all other names, not to a local stub that queries
        vipmesh.
        """,
    )
    RESOLV_CONF = (
        "VM604",
        "resolv.conf",
        """
        `/etc/resolv.conf` cannot be read or lists no usable server, so other names are still forwarded to the
        previous servers, or to none. Set `[dns] upstream` to be independent of that file.
        """,
    )
    NO_RESOLVER_FOR_CONTAINERS = (
        "VM605",
        "No resolver for containers",
        """
        The first address of the VIP pool, where containers send DNS queries, cannot be added to the interface
        of the VIPs, or it is in a network of this host and would take the traffic of another one. Names resolve
        only at `[dns] listen`. Run as root or with `CAP_NET_ADMIN`, move `[vip] pool`, or set `[dns] resolver =
        "off"`.
        """,
    )
    UPSTREAM_FORGERY = (
        "VM606",
        "Replies that answer no question",
        """
        Many packets with the address of an upstream answer no question that was asked. They may be forged to
        put false addresses into the cache, or the network duplicates packets. The questions of that moment were
        repeated over TCP, where a forger cannot take part; `vipmesh_dns_forward_unwanted_total` counts the
        packets.
        """,
    )
    UPSTREAM_REBINDING = (
        "VM607",
        "An upstream answers with an address that it must not",
        """
        A foreign name has an address of this host, of the VIP pool or, with `[dns] private_answers = "refuse"`,
        of a private network. A page of that name could reach services that trust their network (DNS rebinding),
        so the client gets REFUSED. If the name is yours, give its domain servers of its own in `[dns.forward]`,
        for which private addresses are allowed, or publish a CNAME to a name of the mesh.
        """,
    )
    DAEMON_UNREACHABLE = (
        "VM651",
        "No daemon answers",
        """
        `status`, `explain`, `top`, `drain` and similar commands connect to a running daemon, by default on
        `/run/vipmesh/admin.sock`. The daemon does not run, it listens elsewhere (`--admin`, or `-c` with its
        settings), or this user may not open the socket (use `sudo`, or join its group).
        """,
    )
    ADMIN_API_CANNOT_LISTEN = (
        "VM652",
        "The admin API cannot listen",
        """
        The address or path of `[admin] listen` or `tcp` is in use or not permitted, or a certificate cannot be
        loaded. The daemon does not start without its admin API, because its state could not be inspected.
        """,
    )
    ADMIN_TOKEN = (
        "VM653",
        "The admin token",
        """
        `[admin] token_file` and `read_token_file` must have one line of at least 16 characters, not the same
        one, and must not be readable by other users (`chmod 640`). If a file becomes unusable while the daemon
        runs, the last token stays in force.
        Over TCP without a certificate the token crosses the network unencrypted.
        """,
    )
    REQUEST_REFUSED = (
        "VM654",
        "A request that was refused",
        """
        A client called the admin API without a token, or requested something that cannot be done. Lines that
        begin with `audit:` name the client, the request and its result.
        """,
    )
    WATCHER_DISCONNECTED = (
        "VM655",
        "A watcher is disconnected",
        """
        A client of `GET /v1/events`, such as the page, reads too slowly or not at all. It is disconnected so
        that no backlog grows; a browser reconnects by itself.
        """,
    )
    CERTIFICATE_FILE = (
        "VM656",
        "A file of the cluster's certificates cannot be used",
        """
        `vipmesh cluster certs` cannot read or write a file of its directory. It replaces no file that is not a
        certificate with its private key, and makes no second authority beside one whose key is missing: nobody
        would trust what it signs.
        """,
    )
    CERTIFICATE_ENDS = (
        "VM657",
        "A certificate of the admin API ends soon",
        """
        After its end no client can verify this worker, and workers cannot ask one another. Make a new one with
        `vipmesh cluster certs` and put it in the place of the old one: it counts at the next connection. If the
        new file cannot be used, the last one stays in force, and the message says why.
        """,
    )
    ADMIN_CONNECTIONS_REFUSED = (
        "VM660",
        "Connections to the admin API are refused",
        """
        Too many connections to `[admin] tcp` are open whose clients have not sent a valid token, in all or from
        one address, or the daemon has no descriptor left for another one. Clients that have authenticated are
        not counted. The log names the address; a firewall can keep it out.
        """,
    )
    ADMIN_UNAUTHORIZED = (
        "VM661",
        "The admin API asks for a token",
        """
        The worker does not accept the token that the command line sent, or got none. Name the file with the
        token of its `[admin] token_file` with `--token-file`, `VIPMESH_TOKEN_FILE` or in the context, or a
        certificate that its `client_ca` signed with `--cert` and `--key`.
        """,
    )
    ADMIN_TLS = (
        "VM662",
        "No TLS with the admin API",
        """
        The certificate of the worker is not trusted (name its CA with `--ca`) or is for another name, the
        worker asks for a certificate of the client (`--cert`, `--key`), or one side speaks TLS and the other
        one does not (`https://` or `http://`).
        """,
    )
    ADMIN_ACCESS = (
        "VM663",
        "The command line cannot tell which worker to ask",
        """
        `--admin`, a context, or a file with a token, a CA, a certificate or a key cannot be used. [The command
        line](cli.md#which-worker) says how a worker is named.
        """,
    )
    AUDIT_NOT_WRITTEN = (
        "VM664",
        "An audit line cannot be written",
        """
        Every action of the admin API leaves a line when it is requested and one when it has ended. If the first
        one can be written neither to the log nor to `[admin] audit_file` nor to the journal, the action is
        refused. Free the disk, or read the log again: its reader has stopped. The line of an action that has
        ended is kept and written as soon as that is possible.
        """,
    )
    SECRET_IN_CLEAR = (
        "VM665",
        "A secret crosses the network unencrypted",
        """
        The password of etcd is sent to `etcd://`, or the token of the admin API to an address that is not
        loopback, without TLS: whoever sees the packets can use it. Write `etcds://`, or set `[admin] cert` and
        `key`.
        """,
    )
    SECRET_READABLE = (
        "VM666",
        "Every user of the host can read a secret",
        """
        The settings with a password, a file with a token, or a private key can be read by every user of the
        host. Take the permission away (`chmod o-rwx`), and replace the secret if others may have read it.
        """,
    )
    NOTHING_TO_TEST = (
        "VM671",
        "Nothing to test",
        """
        `vipmesh test NAME` found no service with that name, VIP or port, or the daemon knows no services yet.
        `vipmesh status` lists them.
        """,
    )
    CHANNEL_WITHOUT_CERTIFICATE = (
        "VM672",
        "This worker has no certificate to ask other workers with",
        """
        Workers ask one another over their admin APIs, and each shows the other its certificate. Make them with
        `vipmesh cluster certs` and set `[admin] tcp`, `cert` and `client_ca` on every worker. If they are set, the
        message says which file cannot be read. See [the channel between
        workers](cluster.md#the-channel-between-workers).
        """,
    )
    CHANNEL_NO_ADDRESS = (
        "VM673",
        "A worker cannot be asked, since its admin API is nowhere",
        """
        No worker of that name is in the cluster, or it does not publish where its admin API is: it is of an earlier
        version, has no certificates, or does not listen over TCP. Or it publishes an address that cannot be
        another worker's: loopback, a VIP, or one of this host's own. Set `[admin] tcp`, `cert` and `client_ca`
        there, and `[admin] advertise` if others reach it elsewhere.
        """,
    )
    CHANNEL_TLS = (
        "VM674",
        "No TLS with another worker",
        """
        The server at the address that a worker publishes has no certificate with that worker's name, or one that
        has ended, was revoked or is signed by another authority; or it does not accept this worker's. Nothing was
        asked. Make new certificates with `vipmesh cluster certs`; each worker needs the same `ca.pem`.
        """,
    )
    CHANNEL_REFUSED = (
        "VM675",
        "Another worker refuses the request",
        """
        The other worker answered with an error, which the message repeats: it does not know the path, as one of an
        earlier version, or it does not allow it to a worker. A worker may only read on another one; actions
        need the operator's certificate or token.
        """,
    )
    CHANNEL_NO_ANSWER = (
        "VM676",
        "Another worker does not answer",
        """
        The admin API of the other worker is not reached, does not answer in time, or its answer is too long or
        none of vipmesh. Look at that worker itself, and whether a firewall lets its `[admin] tcp` pass between
        workers.
        """,
    )
    LAST_SERVING_ENDPOINT = (
        "VM680",
        "The last endpoint of a service that serves",
        """
        A drain, maintenance, stop or weight of 0 would take the last endpoint that serves from a service with
        several endpoints; those that are requested at once count together. Let another endpoint serve first
        (`vipmesh status` shows why it does not), or type the line in the message, which has `--force`.
        """,
    )
    ACTION_LEFT_OUT = (
        "VM681",
        "An endpoint of another worker was left out",
        """
        The endpoint runs on another worker, and only a certificate or token of your own is sent there: no worker
        acts because another one says so. Name yours with `--cert` and `--ca`, or `--token-file` and `--ca`, in
        the environment or in a context, see [Act on any worker](howto/act-on-any-worker.md); or run the verb on
        that worker.
        """,
    )
    WORKER_ADDRESS_UNKNOWN = (
        "VM682",
        "The admin API of another worker is not known",
        """
        The worker that runs the endpoint publishes no address of its admin API: it has neither `[admin] tcp` nor
        `cert`, its version is older, or it is not connected. Set both there, or run the verb on that worker.
        """,
    )
    ENDPOINT_AMBIGUOUS = (
        "VM683",
        "Several workers run an endpoint of this name",
        """
        The name or ID is that of endpoints on several other workers. Write `NAME@WORKER`, as in the message.
        """,
    )
    WORKER_NOT_REMOVED = (
        "VM684",
        "A worker is not removed",
        """
        `vipmesh workers remove` does not remove the worker that is asked, nor one that runs, without `--force`: it
        would register again at once. Stop its daemon first, and take its rights in etcd with the lines that the
        verb prints. A worker that left nothing in the store has nothing to remove.
        """,
    )
    ACTION_INTERRUPTED = (
        "VM685",
        "The client went away before an action had ended",
        """
        What had begun goes on: an endpoint that drains stays drained until `vipmesh undrain`. What had not begun is
        not done: a container that was to be stopped after its drain runs on and takes connections again, and
        further endpoints of the same line are left as they are.
        """,
    )
    EVENT_OF_WEIGHT = (
        "VM686",
        "An operator set the weight of an endpoint",
        """
        An event of the past: an operator gave an endpoint a weight in place of its label's with `vipmesh weight`,
        or that of its label again with `vipmesh weight ENDPOINT reset`.
        """,
    )
    NO_SUCH_STATUS = (
        "VM690",
        "Nothing has this name in the status",
        """
        `vipmesh status NAME` found no service, VIP, endpoint or worker with that name. `vipmesh status` lists all of
        them, and `vipmesh explain NAME` says what became of what is gone.
        """,
    )
    STATUS_NOT_IN_ORDER = (
        "VM691",
        "The status is not in order",
        """
        The time of `vipmesh status --wait SECONDS` has ended, and there is a problem of level error, a service
        without an endpoint that serves, or no pass yet. The status above the message shows it.
        """,
    )
    NFTABLES_TRAFFIC_NOT_COUNTED = (
        "VM695",
        "nftables does not count traffic",
        """
        The nftables data plane counts connections and bytes in the table `vipmesh_count`, and nft or the kernel
        refused it; the message contains why. Traffic flows all the same. Without counters `vipmesh top` shows
        no rates, and the metrics of traffic are missing. Counting begins with the first request for it that
        succeeds: delete the table if another program made it, or update nft to 1.0 and the kernel to 5.7.
        """,
    )
    SUPPORT_NOT_WRITTEN = (
        "VM696",
        "The archive for support was not written",
        """
        `vipmesh support` writes one file that it makes itself, after it has shown what will be in it and was
        answered `y`. Without a terminal to ask on, add `--yes`. A file that exists is never replaced: name
        another one with `--output FILE`, in a directory that this user may write to.
        """,
    )
    LOG_LINES_LOST = (
        "VM701",
        "Lines of the log were lost",
        """
        The reader of the daemon's standard error stopped reading, and the daemon does not wait for it. The lost
        lines are counted. `vipmesh status` shows all current conditions.
        """,
    )
    LOG_LINES_SUPPRESSED = (
        "VM702",
        "Lines of the log were suppressed",
        """
        Similar lines are limited to a burst of a hundred and then five per second, so that they do not hide the
        line that matters. The next line of the same kind says how many were suppressed. `vipmesh status` shows
        all current conditions.
        """,
    )
    INTERNAL_ERROR = (
        "VM751",
        "An internal error",
        """
        Something unexpected was raised while one thing was handled: a check, a connection, a record, an event or
        a request. Only that thing is affected, and everything else goes on. The log has the traceback once; please
        report it. The problem ends when the same thing succeeds, or after five minutes without a repetition.
        `vipmesh_internal_errors_total` counts these errors.
        """,
    )
    PART_ENDED = (
        "VM752",
        "A part ended and is started again",
        """
        A part of the daemon ended by an internal error. It is started again, after a pause that doubles from a
        tenth of a second to half a minute. Meanwhile its last good state stays in force: what is in the kernel
        goes on forwarding. The log has the traceback once; please report it.
        """,
    )
    WORKER_LACKS_RESOURCES = (
        "VM771",
        "The worker lacks file descriptors, memory or ports",
        """
        This worker could not run a check, because it has no file descriptor, no memory or no port to connect from.
        That says nothing about the endpoint: its last health stays, and it is asked again at its next time. Names
        are answered as ever. `ss -s` shows how many sockets there are; the limit is `LimitNOFILE` of the unit
        (`ulimit -n`), and ports are in `net.ipv4.ip_local_port_range`.
        """,
    )
    PROBLEMS_NOT_SHOWN = (
        "VM772",
        "A file has more problems than are shown",
        """
        So many problems of one compose file are kept, errors before warnings; this line counts the others. The setting
        `[source.compose] problems` says how many, see docs/limits.md. Of keys that do not exist the first twenty are
        shown, and a line of its own counts the others. Correct what is shown; the next look shows what is left.
        """,
    )
    CLAIM_RATE = (
        "VM773",
        "New services wait for their names, because too many are new at once",
        """
        The services of this worker ask for new names, VIPs or published ports faster than `[claims] new_at_once` and
        `new_per_minute` permit, all of its projects together. What is held already is not counted, so that a start of
        the host is not slowed down. The services that wait get theirs one after another, those of projects that hold
        names first. If you start that many new services on purpose, raise the two settings; if not,
        `vipmesh claims list` shows who holds what, and `vipmesh claims free` gives it back.
        """,
    )
    EVENT_OF_ENDPOINT = (
        "VM780",
        "An endpoint came, restarted or is gone",
        """
        An event of the past, which needs no action: an endpoint was registered, got a new process, or is registered
        no more. `vipmesh events NAME` lists the events of a service, endpoint or container.
        """,
    )
    EVENT_OF_HEALTH = (
        "VM781",
        "The health of an endpoint changed",
        """
        An event of the past: the check of an endpoint succeeded or failed, with the answer of the probe. The page
        names endpoints that fail now by the same code. `vipmesh explain NAME` says whether it fails still, and what
        its probe asks.
        """,
    )
    EVENT_OF_DRAIN = (
        "VM782",
        "An endpoint was drained or takes connections again",
        """
        An event of the past: an endpoint got no new connections since an operator drained it, its container was
        being stopped or paused, or its worker could not be reached; or it takes connections again.
        """,
    )
    EVENT_OF_EXIT = (
        "VM783",
        "The process of a container ended",
        """
        An event of the past: the process of a container ended, with its exit code, with the signal that ended it,
        and whether the kernel ended it for want of memory. The log of the container says more.
        """,
    )
    EVENT_OF_SERVICE = (
        "VM784",
        "A service got its VIP, its first endpoint, or lost its last one",
        """
        An event of the past: a service got a VIP, began to be served, lost its last endpoint that served, or is
        declared no more. Clients of a service without a serving endpoint are refused; the page names services that
        are without one now by the same code.
        """,
    )
    EVENT_OF_WORKER = (
        "VM785",
        "A worker came, was lost or is back",
        """
        An event of the past: the daemon of a worker was registered, or its registration ended. While a worker is
        lost, its endpoints are probed by others.
        """,
    )
    EVENT_OF_PROBLEM_END = (
        "VM786",
        "A problem ended",
        """
        An event of the past: a problem, a conflict or the refusal of a label does not hold any more. When a problem
        begins, the event has the code of the problem.
        """,
    )
    EVENT_OF_DAEMON = (
        "VM787",
        "The daemon started or stopped, or recorded nothing for a while",
        """
        An event of the past: this worker's daemon started or stopped. A gap says that it did not run, or was
        suspended, or could not write the events; what happened meanwhile is not known.
        """,
    )
    EVENTS_NOT_KEPT = (
        "VM788",
        "Events cannot be kept on disk",
        """
        The file of the past events cannot be written: the disk is full, or the file or its directory may not be
        written. Only events are lost; everything else goes on. Make room, or set `[events] file` to a file that the
        daemon may write. A damaged file is replaced by an empty one.
        """,
    )
    DOCTOR_VIP_POOL = (
        "VM801",
        "doctor: the VIP pool",
        """
        The pool overlaps a route, an address or a container network of this host, as in
        [VM350](#vm350-the-vip-pool-overlaps-the-hosts-network): VIPs in there are not served.
        """,
    )
    DOCTOR_STORE = (
        "VM802",
        "doctor: the store",
        """
        This user cannot write to the directory of the embedded store, or a member of etcd cannot be reached
        from here. A single unreachable member is a warning: the others serve.
        """,
    )
    DOCTOR_DATA_PLANE = (
        "VM803",
        "doctor: the data plane",
        """
        What the kernel and the program `nft` support here. Without IPVS, `auto` forwards by nftables, and
        without nftables in user space. A missing scheduler module affects only the services that request that
        scheduler.
        """,
    )
    DOCTOR_CAPABILITIES = (
        "VM804",
        "doctor: capabilities",
        """
        The user who ran `vipmesh doctor` lacks a capability that the daemon needs. Run it as the daemon's user,
        or as root to see everything.
        """,
    )
    DOCTOR_KERNEL_SETTINGS = (
        "VM805",
        "doctor: kernel settings",
        """
        A kernel setting differs from what VIPs need: a hint if the daemon will set it itself, an error if it is
        not permitted to.
        """,
    )
    DOCTOR_DNS_PORT = (
        "VM806",
        "doctor: the port of the name server",
        """
        Another program listens where the name server must listen: see
        [VM601](#vm601-the-name-server-cannot-listen).
        """,
    )
    DOCTOR_PUBLISHED_PORTS = (
        "VM807",
        "doctor: published ports",
        """
        The kernel takes the ports of outgoing connections from a range that overlaps the published ports, as in
        [VM592](#vm592-published-ports-among-the-ports-of-outgoing-connections). Reserve the published ports:
        `net.ipv4.ip_local_reserved_ports`.
        """,
    )
    DOCTOR_RESOLVER = (
        "VM808",
        "doctor: name resolution",
        """
        The name servers that this host and its containers use. Routing names resolve only if queries reach the
        name server of the mesh; [Resolver set-up](howto/resolver.md) describes the ways.
        """,
    )
    DOCTOR_CONTAINER_ENGINE = (
        "VM809",
        "doctor: the container engine",
        """
        The engine cannot be used: it does not run, the user is not in its group, or it speaks no version of the
        API that vipmesh knows. Or the engine works, and the message says what it does not report: see
        [Podman](docker.md#podman).
        """,
    )
    DOCTOR_CLOCK = (
        "VM810",
        "doctor: the clock",
        """
        The clock is not synchronised. Certificates and the comparison of logs of several workers depend on it.
        """,
    )
    DOCTOR_NAMES = (
        "VM811",
        "doctor: names outside the allowed domains",
        """
        Names that the running daemon serves and that this version, with these settings, refuses to new services.
        After an upgrade they go on being served; add their domain to `[names] allow` before a service that
        has one of them is replaced by another.
        """,
    )
    DOCTOR_FIREWALL = (
        "VM820",
        "doctor: the firewall",
        """
        A firewall of this host drops what the data plane translates, and the daemon will not open it by itself.
        The finding has the line that does; [Firewall](firewall.md) explains it.
        """,
    )
    DOCTOR_LIVE_RESTORE = (
        "VM821",
        "doctor: live-restore and stacks exclude each other",
        """
        The engine has `live-restore` set, so that its containers outlive its restarts. No swarm starts with it, and
        `vipmesh deploy` needs one. Keep it on hosts whose containers are started in another way.
        """,
    )
    DOCTOR_SWARM_CERTIFICATE = (
        "VM822",
        "doctor: the certificate of the engine in its swarm was not renewed",
        """
        An engine is part of its swarm by a certificate of 90 days, or of the time that `docker swarm update
        --cert-expiry` sets. It asks a manager for another one after half to four fifths of that time. This one is
        older, so no manager was reached, or the host was off. After its end the host cannot come back by itself: type
        `docker swarm leave --force` there, `docker node rm` on a manager, and `docker swarm join` again.
        """,
    )
    DOCTOR_LOG_DRIVER = (
        "VM825",
        "doctor: output that labels ask for cannot be read",
        """
        A container with a label `log_store_<name>: stdout` logs by another driver than `json-file`, so `vipmesh ship`
        finds no file to read, and says so with VM951. The driver belongs to the container: set it, and create it again.
        """,
    )
    DOCTOR_LOG_ROTATION = (
        "VM826",
        "doctor: rotation keeps too little of a log",
        """
        The engine removes the oldest file of a log when the newest one is full. While the store of logs is away,
        `vipmesh ship` reads nothing further, and what is removed then is lost and counted with VM952. The files
        of this container go back less than ten minutes, or it has one file only, which is emptied when it is full.
        `max-size` and `max-file` of its logging say how much is kept; they hold for a container that is created again.
        """,
    )
    FLEET_UNAVAILABLE = (
        "VM901",
        "The engine does not answer for the fleet",
        """
        The engine of this worker is no manager of a swarm, has no quorum, or did not answer in time; the message says
        which. Nothing was changed. Containers go on running, and the mesh goes on routing to them. `docker node ls` on
        a manager shows which managers are reachable.
        """,
    )
    FLEET_REFUSED = (
        "VM902",
        "The engine refuses a request",
        """
        The message has the engine's own reason. Nothing was changed by this request; what was done before it stays.
        """,
    )
    FLEET_CONFLICT = (
        "VM903",
        "Somebody else changed the same service or worker meanwhile",
        """
        A change names the version of the service or worker that it was planned on. Another deploy, another worker or a
        command of the engine was faster, or the name is taken. Nothing was overwritten. Type the command again: it
        plans on what is there now.
        """,
    )
    ACTING_LEASE = (
        "VM904",
        "No daemon acts for the swarm, as far as this worker knows",
        """
        One of the daemons whose engine is a manager of the swarm keeps the labels of workers by which affinities hold.
        It has the key `acting` of the store under a lease, and this worker cannot ask for it. Nothing is moved, and
        what runs goes on. If etcd has users, their roles need the key: `vipmesh cluster roles WORKER` prints the lines.
        """,
    )
    WORKER_BOUND = (
        "VM905",
        "Services are bound to the worker that is to be drained",
        """
        Their instances have data of the worker (a volume or bind mount that they write to), or no other worker fulfils
        their constraints. Nothing was changed. With `--force` they end with the others, and start elsewhere without
        their data, or when the worker is back. A service whose data are elsewhere says so in its file with the entry
        `reschedule:on-node-failure` of its environment.
        """,
    )
    SERVICE_MOVING = (
        "VM906",
        "Another drain moves the same service",
        """
        More instances of the service run than are wanted, until those of another worker have ended. Let that drain end:
        type it again, or take that worker back with `vipmesh undrain --worker WORKER`.
        """,
    )
    FLEET_WORKER_UNKNOWN = (
        "VM907",
        "The swarm has no such worker, or several",
        """
        `--worker` takes the host name of an engine of the swarm, or its ID: `docker node ls` lists both. Several
        engines may have one host name; write the ID.
        """,
    )
    ENDPOINTS_NOT_DRAINED = (
        "VM908",
        "Endpoints of a worker could not be drained",
        """
        The daemon of the worker refuses; the message has its reason. Its instances run on, and the ones that were added
        elsewhere serve beside them. Type the same command again, or take the worker back with
        `vipmesh undrain --worker WORKER`.
        """,
    )
    STACK_KEY_REFUSED = (
        "VM910",
        "A key that a deployed service cannot have",
        """
        A deployed service may have several instances on several workers, and the engine makes them from a
        form that has no place for this key. The service is not deployed and what runs of it stays as it is;
        the other services of the file go on. [Compose files](compose.md) has what becomes of each key.
        """,
    )
    STACK_KEY_IGNORED = (
        "VM911",
        "A part of a compose file that has no effect",
        """
        The service is deployed without what the message names. It says what to write in its place, or to
        remove it.
        """,
    )
    STACK_VALUE = (
        "VM912",
        "A value of a compose file that cannot be read",
        """
        The service is not deployed and what runs of it stays as it is; the other services of the file go on.
        The message says what to write.
        """,
    )
    STACK_NEED = (
        "VM913",
        "A service that waits for one that never comes",
        """
        A service in `depends`, `depends_on` or `links` is not in the files, its profile is not active, or the
        services wait for one another in a circle. Services of a circle are not deployed.
        """,
    )
    STACK_PLACEMENT = (
        "VM914",
        "A placement that the engines cannot keep",
        """
        An entry of the environment such as `constraint:`, `affinity:` or `availability:`, or an entry of
        `deploy.placement.constraints`, says something that cannot be kept, or is not understood. The service
        is not deployed, since its instances would run where the file does not want them.
        """,
    )
    STACK_ZONES = (
        "VM915",
        "Fewer zones than a service must have",
        """
        `availability:az==3` wants instances in three zones, or none at all. Too few workers that are ready
        have the label `az` with different values, or the service has too few instances. Nothing is created.
        Label the workers (`docker node update --label-add az=a WORKER`), or write `==~3`, which is a wish.
        """,
    )
    STACK_FILE = (
        "VM916",
        "A config or secret that the engine does not have from the file",
        """
        Only configs and secrets that are in the engine already can be given to instances. Create it with
        `docker config create` or `docker secret create`, and write `external: true` at the top level of the
        file.
        """,
    )
    RELEASE_CHECK = (
        "VM918",
        "A check of a release that cannot be run",
        """
        `release.check.url` is the URL of a page that shows whether a new release works:
        `http://container:8080/check`, where `container` stands for the address of each instance. Another host must lie
        in `[rollouts] check_networks`, and it may never be this host, a loopback or link-local address, or a VIP,
        however it is written. `release.check.cmd` is a command that runs inside an instance of the new release. The
        message says what is wrong. Until it is mended the check has no result, and the release is not promoted.
        """,
    )
    EVIDENCE_NOT_WRITTEN = (
        "VM920",
        "What is seen of a release cannot be written to the store",
        """
        A rollout runs, and the store does not answer or refuses the record of this worker. If it refuses since the role
        of this worker lacks the right, run the lines of `vipmesh cluster roles` again: evidence has a prefix of its
        own. Without evidence no release is promoted, and at its deadline the rollout is aborted. Shares stay in force.
        """,
    )
    FLEET_NO_QUORUM = (
        "VM925",
        "The swarm has no leader",
        """
        The engine answers, and its swarm does not: fewer than half of its managers reach each other, or they are
        choosing a leader, which takes up to 40 seconds after the last one was lost. Containers run on, routing goes on,
        and nothing can be listed or changed meanwhile; no instance of a lost worker is started elsewhere. Start the
        managers, or connect them, until more than half of them reach each other. If they are lost for good, type
        `docker swarm init --force-new-cluster` on one that is left, and let the other hosts join it again. Of three
        managers one may fail, of five two.
        """,
    )
    STACK_ON_MANAGER = (
        "VM926",
        "The verb is typed on another worker, whose engine manages the swarm",
        """
        `deploy`, `undeploy`, `rebalance` and `drain --worker` change services through the engine of the host on which
        they are typed, and this one's is no manager of the swarm. The message names a worker whose engine is one, and
        the line to type there. `deploy` reads its files there: the same ones, with the `.env` beside them.
        `docker node promote` makes the engine of this host a manager. `ps`, `history` and `scale` work here.
        """,
    )
    STACK_NOT_READY = (
        "VM930",
        "A service did not become ready",
        """
        The message names the service, how many instances are ready and why the others are not: in the words of the
        engine (`pending`, `rejected`, `failed` with the exit code), or what the last probe was answered. A release that
        was there before keeps the instances that the new one did not replace. Correct the cause and deploy again, or
        deploy the files of before. `vipmesh ps` shows the instances, `vipmesh explain` the way of a request.
        """,
    )
    STACK_INTERRUPTED = (
        "VM931",
        "A deploy, a rebalancing or a drain was interrupted",
        """
        What was done stays as it is, and is never less than what ran before. The same command goes on from there.
        """,
    )
    STACK_UNKNOWN = (
        "VM932",
        "No such project or service was deployed",
        """
        `vipmesh ps` lists what was deployed with `vipmesh deploy`. What `docker compose`, `docker stack` or
        `docker service` have made is not among it, and no verb of stacks touches it.
        """,
    )
    STACK_NOT_SCALED = (
        "VM933",
        "A service has no number of instances that could be changed",
        """
        Several projects have a service of this name: write `PROJECT/SERVICE=N`. Or two releases of it run since a
        deploy has not ended: deploy again. Or it is `global` and has one instance on each worker.
        """,
    )
    STACK_NO_SWARM = (
        "VM934",
        "The engine is part of no swarm",
        """
        Stacks need an engine in swarm mode. `vipmesh deploy --init` makes a swarm of this engine alone, which listens
        on the loopback address only; several engines are joined with `docker swarm init` and `docker swarm join`. An
        engine with `live-restore` in its daemon.json cannot be in a swarm: remove it and restart the engine.
        """,
    )
    STACK_NO_MANAGER = (
        "VM935",
        "No worker whose engine manages the swarm answers",
        """
        Only an engine that is a manager of the swarm says what runs, and changes it. This worker's is none, and no
        other worker answers for one over the channel between workers. Ask a worker on a manager with `--admin`, or let
        workers ask one another: `[admin] tcp`, `cert` and `client_ca` on each, certificates from
        `vipmesh cluster certs`. With your own certificate or token (`--cert` and `--ca`, or `--token-file`) the command
        line asks the other workers itself. `docker node promote` makes an engine a manager.
        """,
    )
    STACK_ELSEWHERE = (
        "VM936",
        "Another worker has to do it, and cannot be asked with your credentials",
        """
        The engine that manages the swarm is that of the worker in the message. It does what an operator asks for, with
        the operator's own certificate or token, and never what another worker asks for. Name your certificate with
        `--cert` and who signed the workers' with `--ca`, or type the command on that worker.
        docs/howto/act-on-any-worker.md has the steps.
        """,
    )
    DEPLOYS_NOT_KEPT = (
        "VM937",
        "The last deploys are not written to the store",
        """
        The store does not answer, or does not let this worker write below `stacks/`. Stacks run on; only
        `vipmesh history PROJECT` on workers whose engines are no managers does not show the newest deploys. It is tried
        again. With roles in etcd, type the lines that `vipmesh cluster roles` prints again.
        """,
    )
    RELEASE_STEPS = (
        "VM940",
        "A label about the steps of a rollout",
        """
        `release.steps` are shares that grow, each with the time that it takes at least, or `hold` for one that waits
        for `vipmesh rollout promote`: `1%,5m;10%,10m;50%,hold`. There are 20 steps at most, and a step takes up to
        seven days. The message has what is wrong. The steps of the strategy count instead.
        """,
    )
    ROLLOUT_REFUSED = (
        "VM941",
        "A rollout cannot do that now",
        """
        `vipmesh rollout promote`, `pause`, `resume`, `abort` and `undo` need a rollout in the right phase, which
        `vipmesh rollout status SERVICE` shows. A service has a rollout if its containers have the labels
        `routing.release` and `release.strategy` with `canary`, `progressive` or `blue-green`, and a second release of
        it was started.
        """,
    )
    ROLLOUT_STEP = (
        "VM942",
        "A rollout has begun, or has taken its next step",
        """
        This is an event. The message has the release, its share of new connections, and what the judge saw or who
        asked for it.
        """,
    )
    ROLLOUT_ABORTED = (
        "VM943",
        "A rollout was aborted",
        """
        The new release was bad, its deadline has passed, or an operator aborted it; the message says which. The old
        release has all new connections again, and the new one gets none: its instances run on, so that you can look at
        them. Stop them, mend the release, and start it anew; a release of another name begins a rollout at once.
        """,
    )
    ROLLOUT_STUCK = (
        "VM944",
        "A rollout does not go on",
        """
        The new release is neither good nor bad: too little is known of it, or something speaks against it that is not
        enough for an end. The message says what. At the deadline, `release.deadline_seconds`, the rollout is aborted.
        `vipmesh rollout promote SERVICE` takes the next step anyway, `vipmesh rollout abort SERVICE` ends it.
        """,
    )
    ROLLOUT_NOT_WRITTEN = (
        "VM945",
        "The next step of a rollout cannot be written to the store",
        """
        The store does not answer, or refuses the write. Shares stay as they are, and no step is taken until it answers.
        To end a rollout meanwhile, stop the instances of the new release. If the role of this worker in etcd lacks the
        right, type the lines of `vipmesh cluster roles` again.
        """,
    )
    ROLLOUT_DONE = (
        "VM946",
        "A rollout is done",
        """
        This is an event. The new release has all new connections. The instances of the old one get none any more: stop
        them when their connections have ended.
        """,
    )
    LOG_LABEL = (
        "VM950",
        "A label about logs",
        """
        The value of a label about logs is not valid, or two stores collect the same lines. The message has the valid
        form. The label counts as absent; with `log_store_<name>` absent, nothing of the container is collected.
        """,
    )
    LOG_DRIVER = (
        "VM951",
        "Logs of a container cannot be read because of its log driver",
        """
        `vipmesh ship` reads the files of the engine's driver `json-file`. The container logs by another one, or by
        none. Set `logging: {driver: json-file}` in the compose file, or `"log-driver": "json-file"` in the engine's
        `daemon.json`, and create the container again. Other containers are collected.
        """,
    )
    COLLECTED_LINES_LOST = (
        "VM952",
        "LOST: log lines were removed before they were read",
        """
        The engine's rotation removed lines before `vipmesh ship` read them: it was stopped, or the store of logs did
        not answer for too long. The message has the container and how many bytes are known to be missing; what was
        rotated while the process did not run is counted as one occasion, since its size is not known. Let the engine
        keep more: `logging: {options: {max-size: 50m, max-file: "5"}}`.
        """,
    )
    LOG_STORE_UNREACHABLE = (
        "VM953",
        "The store of logs does not take lines",
        """
        No endpoint of the store answers, or it answers with a status that says to come back later (429, 5xx), or it
        refuses the credentials. `vipmesh ship` tries again after at most 30 s and reads no further meanwhile: the
        engine's files keep the lines, up to their rotation. Nothing is sent twice.
        """,
    )
    LOG_DOCUMENT_REFUSED = (
        "VM954",
        "The store of logs refuses a line",
        """
        The store refused a single document for good, most often because a field has another type in its index. The line
        and the reason are in `refused.jsonl` in `[ship] state`, a file of at most 16 MiB and one generation before it.
        Other lines go on.
        """,
    )
    LOG_POSITIONS = (
        "VM955",
        "The positions of collected logs cannot be read or saved",
        """
        The file `positions.json` in `[ship] state` says up to where the store has every log. If it cannot be saved,
        as on a full disk, nothing further is read until it can. If it is damaged, it is set aside under the name
        `positions.json.damaged`, and every log is read from its beginning: lines that Elasticsearch has already are
        not stored twice.
        """,
    )
    LOG_RATE_LIMITED = (
        "VM956",
        "Log lines are dropped because of log.rate_limit",
        """
        The container writes more lines per second than its label `log.rate_limit` allows. The lines above it are
        dropped and counted. Raise the limit, or let the program write less.
        """,
    )
    LOG_FILE_UNREADABLE = (
        "VM957",
        "The log file of a container cannot be read",
        """
        The engine names the file, but it cannot be opened or is no regular file. `vipmesh ship` needs
        CAP_DAC_READ_SEARCH and the engine's directory at the same path as the engine has it; in a container, mount
        `/var/lib/docker/containers` there, read-only.
        """,
    )
    LOG_SHIP_SETTINGS = (
        "VM958",
        "vipmesh ship cannot start with these settings",
        """
        Not exactly one of `[ship] elasticsearch`, `loki`, `otlp` and `directory` says where lines go; settings do not
        go together, such as a user without a file with the password, or a lifecycle without Elasticsearch; there is no
        `[source.docker]`; or a file or directory that is named cannot be used.
        """,
    )
    LOG_PATH_UNREACHABLE = (
        "VM960",
        "Files in a label about logs that the host does not have",
        """
        The path of `log_store_<name>` is on a tmpfs, on a volume without a directory on the host, or in the layer of a
        container whose storage driver does not say where it is: `overlay2` does, containerd's image store does not.
        Mount a volume at the directory that the message names, and create the container again.
        """,
    )
    LOG_FILE_REFUSED = (
        "VM961",
        "Log files that are not read: links, FIFOs, devices",
        """
        Only regular files are read, and no link is followed: a container could lead it to files of the host. Name the
        files by the path that they have themselves. Many images have `/var/log/...` as links to `/dev/stdout`: collect
        `stdout` then. `vipmesh_ship_refused_files` counts the names.
        """,
    )
    LOG_TOO_MANY_FILES = (
        "VM962",
        "More log files than are collected at once",
        """
        At most 128 files of a container are open at once, 4096 names of a directory are looked at, and 64 directories
        are. A file that is read to its end makes room for the next one after 5 seconds without a change. Name fewer
        files, or remove old ones.
        """,
    )
    LOG_LINES_CUT = (
        "VM963",
        "Log lines that are too long",
        """
        A line of a file, or an event that `log.multiline` joins, has more than 64 KiB or 500 lines. It becomes several
        documents, and nothing of it is lost; `vipmesh_ship_split_total` counts them. Let the program write shorter
        lines, or look whether the pattern fits its lines.
        """,
    )
    LOG_DIRECTORY_UNREADABLE = (
        "VM964",
        "A directory with log files cannot be opened",
        """
        `vipmesh ship` needs CAP_DAC_READ_SEARCH, Linux 5.6, and the directories of volumes, bind mounts and layers at
        the same paths as the engine has them. In a container, mount `/var/lib/docker/volumes` and
        `/var/lib/docker/overlay2` there, read-only, as `deploy/compose.ship.yaml` does.
        """,
    )
    LOG_FILE_DAMAGED = (
        "VM965",
        "A log file inside of a container cannot be read",
        """
        The file was opened, but reading it fails, as on a damaged disk or a network file system that does not answer.
        It is given up, and counted as lost; other files go on.
        """,
    )
    LOG_LIFECYCLE = (
        "VM967",
        "The lifecycle of collected logs cannot be set up",
        """
        With `[ship] lifecycle`, `vipmesh ship` makes a template and a policy for each `log_ttl_<name>` before it stores
        a line that the policy is to delete. The store refused that: the message has its answer. Nothing is stored
        meanwhile, since it would not be deleted. Grant the privileges `manage_ilm` and `manage_index_templates` (in
        OpenSearch those of ISM policies and index templates), or set `lifecycle` to `off`.
        """,
    )
    LOG_LINES_REJECTED = (
        "VM968",
        "The store of logs rejects lines and does not say which",
        """
        A store that speaks OTLP answered that it took a part of a request (`partialSuccess`). The protocol forbids to
        send it again and does not name the rejected lines; the message has their number and the store's reason, and
        `vipmesh_ship_rejected_total` counts them. If all lines of a request are rejected, they are in `refused.jsonl`.
        """,
    )
    LOG_ROTATION = (
        "VM969",
        "Rotation can remove log lines before they are read",
        """
        The logs of the service are collected, and its logging options set `max-size` without `max-file`, or with one
        file. The engine then empties the file as soon as it is full, together with what `vipmesh ship` has not read.
        Write `max-file: "5"`: all files together should hold what the service writes while the store of logs is away.
        """,
    )
    LOG_COPY_ROTATION = (
        "VM970",
        "A log file is rotated by a copy and a cut",
        """
        A rotation copies the file and cuts it then (`copytruncate` of logrotate). Lines that the program writes between
        the two are in neither file. What of them was seen and not read is counted as lost [VM952]; of the rest nobody
        knows. Let the rotation rename the file, and the program open it again, as by `postrotate` with a signal.
        """,
    )
    LOG_LINES_BY_ENGINE = (
        "VM973",
        "Log lines come from the engine, not from the files",
        """
        On this worker `vipmesh ship` does not answer on the socket `[ship] socket`, or no label asks it to collect this
        service. So the daemon asked the engine for the lines. The engine may leave out what it rotates meanwhile, and
        has no lines of containers that are removed. Run `vipmesh ship`, with the label `log_store_<name>: stdout`.
        """,
    )
    LOG_SERVICE_UNKNOWN = (
        "VM974",
        "No service, or several services, have the name whose log lines are asked for",
        """
        No worker that answered has a container of this service, running or ended, or the name without its project
        means services of several projects. Write `PROJECT/SERVICE`; `vipmesh status` lists the services.
        """,
    )
    LOG_LINES_LEFT_OUT = (
        "VM975",
        "Log lines are left out of an answer",
        """
        An answer has at most 10,000 lines and 4 MiB of text, and little time to look for them. Ask for less: a shorter
        time with `--since`, fewer lines with `-n`. A search for a rare pattern in a large log is for the store of logs.
        """,
    )
    SHIP_NOT_RUNNING = (
        "VM976",
        "Labels ask for logs, and vipmesh ship does not answer",
        """
        Containers of this worker have a label `log_store_<name>`, but nothing answers on the socket `[ship] socket`, so
        their lines are not collected. Start it: `systemctl start vipmesh-ship`. If it runs, give both processes the
        same `[ship] socket`, and let the daemon's user open it (`[ship] socket_group`).
        """,
    )
    SHIP_BEHIND = (
        "VM977",
        "vipmesh ship is behind",
        """
        The last delivered line of some container is more than a minute old while newer ones wait, or `vipmesh ship`
        waits for the store of logs, its disk or the engine. Nothing is lost as long as the engine keeps the files. See
        the log of `vipmesh ship`.
        """,
    )
    SHIP_LOSES = (
        "VM978",
        "vipmesh ship has lost lines, or the store of logs has refused some",
        """
        Within the last ten minutes rotation removed lines before they were read (VM952), or the store of logs refused
        lines for good (VM954). The log of `vipmesh ship` names the containers.
        """,
    )
    SHIP_SOCKET = (
        "VM979",
        "vipmesh ship cannot listen on its socket",
        """
        The path `[ship] socket`, its group `[ship] socket_group` or the address `[ship] metrics` cannot be used. Lines
        are collected all the same; `vipmesh logs` gets them from the engine.
        """,
    )
    SHARES_REFUSED = (
        "VM980",
        "Shares that a service cannot have",
        """
        Shares divide the new connections of one service among its releases, which the label `routing.release` of its
        containers names. The service or the release does not exist, the service has one release, or the shares are
        more than 100 per cent together; the message says which, and what to write. Nothing was changed. [Shares of
        releases](howto/shares.md) has examples.
        """,
    )
    SHARES_WITHOUT_WEIGHTS = (
        "VM981",
        "Shares of a service whose scheduler ignores weights",
        """
        The schedulers `rr` and `lc` treat all endpoints alike, so a release would get as much as it has endpoints,
        whatever its share. `wrr` and `wlc` are the same with weights. Nothing was changed.
        """,
    )
    SCALING_LABEL = (
        "VM987",
        "A label about autoscaling",
        """
        The value of a label `auto_scaling.*` is not valid. The message has the valid form. The service keeps the
        instances that it has: with one wrong label of these none is used, since a missing bound could end instances.
        """,
    )
    SCALING_LABELS_CONTRADICT = (
        "VM988",
        "Labels about autoscaling that contradict each other",
        """
        `target_cpu` beside `max_cpu` or `min_cpu`, a minimum that is not below its maximum, a schedule outside of the
        bounds, or any of these labels beside `global`. The message says which to change. None of the labels
        `auto_scaling.*` of the service is used meanwhile.
        """,
    )
    SCALING_SCHEDULE = (
        "VM989",
        "A schedule of autoscaling that cannot be read",
        """
        Each entry has the five fields of crontab(5), then `min=N`, `max=N` or both; `;` separates entries. The time
        zone is a name of the time zone database, such as `Europe/Berlin`. None of the labels `auto_scaling.*` of the
        service is used meanwhile.
        """,
    )
    USAGE_UNREADABLE = (
        "VM990",
        "The usage of a container cannot be read",
        """
        The service has labels `auto_scaling.*`, and the cgroup files of this container are not visible to the daemon:
        it does not see the processes of the host, or has a cgroup namespace of its own. Run it with the PIDs and the
        cgroups of the host (`pid: host`, `cgroup: host`) and with `/sys/fs/cgroup`. Nothing is removed from a service
        while one of its instances has no sample.
        """,
    )
    USAGE_NOT_WRITTEN = (
        "VM991",
        "The usage of containers cannot be written to the store",
        """
        The store does not answer, or refuses the record. If it refuses since the role of this worker lacks the right,
        run the lines of `vipmesh cluster roles` again: usage has a prefix of its own. Traffic does not depend on it,
        and no service loses instances meanwhile.
        """,
    )
    USAGE_NOT_READ = (
        "VM992",
        "The usage of containers cannot be read from the store",
        """
        The daemon that acts for the swarm decides from what all workers wrote. Until the store answers no service gets
        more or fewer instances by its load; those that it has stay.
        """,
    )
    AUTOSCALED = (
        "VM993",
        "A service got more or fewer instances by its load",
        """
        The message has the number before and after, what was measured and the threshold or the schedule. How it decides
        is in [Autoscaling](howto/autoscaling.md).
        """,
    )
    AUTOSCALING_ELSEWHERE = (
        "VM994",
        "Another worker scales services",
        """
        The worker that acts for the swarm decides, and it alone can say what and why. The message names it, if it is
        known. `vipmesh status` shows who acts.
        """,
    )


_SECTIONS = (
    ("VM101", "Labels and compose files"),
    ("VM201", "Names, VIPs, ports, containers"),
    ("VM301", "Settings and start"),
    ("VM401", "Store"),
    ("VM451", "Other workers"),
    ("VM501", "Data plane and host"),
    ("VM601", "Name server and admin API"),
    ("VM701", "Log"),
    ("VM751", "Internal errors"),
    ("VM771", "Resources of the worker"),
    ("VM780", "Events"),
    ("VM801", "doctor"),
    ("VM901", "Stacks"),
    ("VM950", "Collected logs"),
    ("VM980", "Shares of releases"),
    ("VM987", "Autoscaling"),
)
"""The first code of each section of the page, and the heading of the section."""

_INTRODUCTION = """\
# Errors

Every message ends with its code: `... the name web.local is held by shop/web; give it a name of its own [VM201]`. The
meaning of a code never changes, while the wording may. Programs find it as `code` in the output of `--json`, and in
each line of the log as `code=VM201`.

An **error** refuses only what it names: a label, a service or an operation; everything else continues. `vipmesh explain
NAME` shows its effect on a request. `vipmesh status` lists the current conditions; `vipmesh events` has past ones.

| codes | about |
|---|---|
| [VM1xx](#labels-and-compose-files) | labels and compose files |
| [VM2xx](#names-vips-ports-containers) | names, VIPs, published ports, containers |
| [VM3xx](#settings-and-start) | settings, the start |
| [VM4xx](#store) | the store |
| [VM5xx](#data-plane-and-host) | the data plane and the host |
| [VM6xx](#name-server-and-admin-api) | the name server, the admin API |
| [VM7xx](#log) | the log, internal errors, [resources](#resources-of-the-worker), [events](#events) |
| [VM8xx](#doctor) | what `vipmesh doctor` finds |
| [VM9xx](#stacks) | stacks, releases, autoscaling, [collected logs](#collected-logs), [shares](#shares-of-releases) |
| [VM9xx](#stacks) | stacks, releases, [collected logs](#collected-logs) and [autoscaling](#autoscaling) |
"""


def errors_page() -> str:
    """Return the text of `docs/errors.md`, which explains every code."""
    headings = dict(_SECTIONS)
    parts = [_INTRODUCTION]
    for code in sorted(Code, key=str):
        if code.value in headings:
            parts.append(f"## {headings[code.value]}\n")
        parts.append(f"### {code} {code.title}\n")
        parts.append(f"{_wrapped(code.explanation)}\n")
    return "\n".join(parts)


def _wrapped(paragraph: str, width: int = 120) -> str:
    """Wrap the paragraph to lines of at most `width` characters."""
    lines, words = [""], ""
    for word in paragraph.split():
        words = f"{words} {word}".strip()
        if words.count("`") % 2:
            continue  # a span of code stays on one line: tools that search the page read it line by line
        if len(lines[-1]) + 1 + len(words) > width:
            lines.append(words)
        else:
            lines[-1] = f"{lines[-1]} {words}".strip()
        words = ""
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(errors_page())
