"""The code of every message that users meet: `the name web.local is held by shop/web; ... [VM201]`.

A message carries its code from where it is made: a `Problem` and a `MeshError` have it as `code`, a line of the log has
it by `extra=Code.NAME_TAKEN.extra`. Users look a code up in `docs/errors.md`, which is written from this module by
`python -m mesh.model.codes > docs/errors.md`; programs compare it. A code keeps its meaning for good, while the wording
of its messages may change, and the value of a code that is no longer used is never used again.
"""

import sys
from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType


@unique
class Code(Enum):
    """Names the subject of a message. The value is what users see; a value that is there twice fails at import."""

    title: str
    """The heading in `docs/errors.md`."""
    _explanation: str

    def __new__(cls, value: str, title: str, explanation: str) -> "Code":
        """Make a member of its value, its title and the text of its section."""
        member = object.__new__(cls)
        member._value_ = value
        member.title = title
        member._explanation = explanation
        return member

    def __str__(self) -> str:
        return str(self.value)

    @property
    def explanation(self) -> str:
        """What the message means and what to do: one paragraph of Markdown, on one line."""
        return " ".join(self._explanation.split())

    @property
    def extra(self) -> Mapping[str, "Code"]:
        """The argument `extra` of a logging call, which gives the record the attribute `code`."""
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
        The label is known from the platform that these labels come from, and nothing here acts on it yet. The
        message says what to do by hand instead; the label may stay.
        """,
    )
    LABEL_DIFFERS_BY_PREFIX = (
        "VM103",
        "A label under both prefixes, with different values",
        """
        `mesh.` and `aliyun.` mean the same, so both may be there only with one value. Neither counts until one
        of them is removed.
        """,
    )
    LABEL_WITHOUT_EFFECT = (
        "VM104",
        "A label without effect",
        """
        The label belongs to something that is not there: a weight without a route, a probe's timeout without a
        probe, a minimum of connections without a maximum. Add what it belongs to, or remove it.
        """,
    )
    LABEL_PORT = (
        "VM105",
        "The label's port or transport",
        """
        In `routing.port_<port>` the port is a number from 1 to 65535, written without leading zeros; nothing,
        `/udp` or `/sctp` follows it. The same holds for listen ports in values, as in `web.local:8080`.
        """,
    )
    NOT_A_DNS_NAME = (
        "VM110",
        "A routing name that is no DNS name",
        """
        A routing name has letters, digits, hyphens and underscores, up to 63 characters between two dots and
        253 in all. Names of other scripts are written in their IDNA form (`xn--...`). Wildcards and addresses
        are no names; a fixed address goes into `routing.vip`. A name without a dot gets the domain of the
        setting `[dns] domain`.
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
        "Two labels that want one port of the VIP",
        """
        All names of a service share its VIP, so one listen port leads to one container port. Give the second
        one another listen port, `web.local:8081`, or make it a service of its own.
        """,
    )
    PUBLISHED_PORT_CLASH = (
        "VM113",
        "Two labels that publish one port",
        """
        One published port leads to one container port of one service. Write another number, or `auto` to have
        one assigned.
        """,
    )
    FIXED_VIP_UNUSABLE = (
        "VM114",
        "A fixed VIP that cannot be one",
        """
        `routing.vip` is a plain unicast address of the pool in the setting `[vip] pool`. Without the label a
        VIP is assigned, and it stays the service's own for good, so that few services need the label.
        """,
    )
    SCHEDULER_OR_FLAGS = (
        "VM115",
        "A scheduler or its flags",
        """
        `routing.scheduler` is one of IPVS's own: `rr wrr lc wlc sh mh sed nq dh`. The flags `fallback` and
        `port` belong to the hashing ones, `sh` and `mh`. Which of them a data plane without IPVS can do is in
        [Data planes](dataplane.md).
        """,
    )
    FORWARDING_METHOD = (
        "VM116",
        "A way of forwarding that does not fit",
        """
        `tunnel` and `direct` leave the destination port of a packet as it is, so listen port, published port
        and container port must be equal; `masquerade`, the default, may change it. See
        [Forwarding](labels.md#forwarding).
        """,
    )
    VALUE_OUT_OF_RANGE = (
        "VM117",
        "A number or time out of range",
        """
        The message has the bounds. Times are seconds without a unit: `2`, not `2s`; fractions are written with
        a dot. A minimum of connections lies below its maximum.
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
        "A probe that cannot be asked",
        """
        `probe.url` is `http://container[:port][/path]`, `https://...`, `tcp://container:port`,
        `udp://container:port` with `probe.send`, or `grpc://container:port[/service]`; the word `container`
        stands for the endpoint's address, since each endpoint is asked for itself. `probe.cmd` is a command of
        at most 4000 characters, `probe.expect_status` a list such as `200-399,404`. While the label is refused
        the service has no probe, and its endpoints count as healthy while they run.
        """,
    )
    PROBE_LONGER_THAN_INTERVAL = (
        "VM121",
        "A probe that takes longer than its interval",
        """
        The next check is due before the last one may have ended. It is then asked when that has ended, so the
        interval is longer than it says. Make the timeout shorter or the interval longer.
        """,
    )
    PROBE_COMMAND_WITHOUT_ENGINE = (
        "VM122",
        "A command as a probe where no engine runs",
        """
        `probe.cmd` is run by a container engine, inside the container. Endpoints of `x-endpoints` have no
        engine: probe them by URL.
        """,
    )
    WRITTEN_TWICE = (
        "VM123",
        "Something is written twice",
        """
        A key, a label, a name or an endpoint is written twice. If the two values differ, neither is used,
        because it is not known which one is meant.
        """,
    )
    LABELS_DIFFER_BETWEEN_INSTANCES = (
        "VM124",
        "Instances whose labels differ",
        """
        The containers of one service declare it differently, as they do for a moment while one after the other
        is replaced. The first instance's labels count, or those of the first worker; weight and release are
        each instance's own. If it stays, some of them were started from another file.
        """,
    )
    PROBE_REQUEST_OR_EXPECTATION = (
        "VM125",
        "What a probe sends, or looks for",
        """
        A method, host, header, text or datagram that no request can carry, or that no answer can have. The
        message has what was written and what to write; [what probes do](probes.md) has all labels. While the
        label is refused, the default is used.
        """,
    )
    COMPOSE_NOT_YAML = (
        "VM150",
        "A compose file that is not YAML, or not within bounds",
        """
        The file cannot be read, is no YAML, or goes beyond a bound that keeps a file from costing more than its
        size. The line is where the parser noticed, so the mistake is there or just before. A daemon that runs
        keeps the last list in force.
        """,
    )
    COMPOSE_STRUCTURE = (
        "VM151",
        "A compose file of another shape",
        """
        It is YAML, and not what Compose calls a file: services are a mapping of names to mappings, labels a
        mapping or a list of `KEY=VALUE`, values are text.
        """,
    )
    COMPOSE_NOT_FOLLOWED = (
        "VM152",
        "Something that is not followed",
        """
        `extends`, `include`, `label_file` and YAML tags are not followed. Name included files as well, or write
        out what is meant.
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
        `${NAME}` is filled in from the environment and the file `.env` beside the compose file. A variable that
        is not set counts as empty, which is rarely meant: set it, or give it a default, `${NAME:-v1}`. A dollar
        sign is written `$$`.
        """,
    )
    COMPOSE_ENDPOINT_ADDRESS = (
        "VM155",
        "An endpoint's address",
        """
        `x-endpoints` lists addresses of single instances, with a port where that differs from the container's.
        Names are not looked up, and an address that no instance can have (unspecified, multicast) is refused.
        """,
    )
    NAME_TAKEN = (
        "VM201",
        "A name that another service holds",
        """
        Two services declare one routing name. The one that came first keeps it; nothing flaps. The second has
        no VIP if it is its first name, and does not answer to it otherwise. Give it a name of its own, or
        remove the label from the first: then the second takes the name over, together with its VIP. `vipmesh
        explain NAME` shows both.
        """,
    )
    VIP_TAKEN = (
        "VM202",
        "A VIP that another service holds",
        """
        The label `routing.vip` asks for an address that is another service's, that lies outside of the pool, or
        that no service gets (the pool's first two and its last). While the label asks for it the service has no
        VIP. Without the label, the VIP that the service holds lies outside of the pool, since the pool was
        changed or the claim was written by hand: nothing of the service is programmed until the pool has that
        VIP, the label fixes another one, or the claim is forgotten. A VIP belongs to its service's name for
        good, also while that service is gone; `docs/store.md` says how to forget a claim.
        """,
    )
    PUBLISHED_PORT_TAKEN = (
        "VM203",
        "A published port that another service holds",
        """
        A published port leads to one container port of one service in the whole cluster, since it is the same
        on every worker. Publish another one, or `auto`.
        """,
    )
    POOL_EXHAUSTED = (
        "VM204",
        "No VIP or published port is left",
        """
        Every address of `[vip] pool`, or every port of `[publish] ports`, is given away. Those of services that
        are gone count, too: they keep theirs. Make the pool or the range larger on all workers, or forget
        claims that nobody needs (`docs/store.md`).
        """,
    )
    PUBLISHED_PORT_IN_USE = (
        "VM205",
        "A published port that a program listens on",
        """
        A program of this worker listens on the port, and to balance it would take it from that program:
        publishing port 22 would lock you out. The port is not published on this worker; on others it is. `ss
        -lnp sport = PORT` shows the program.
        """,
    )
    WORKER_NAME_TAKEN = (
        "VM206",
        "Two daemons with one name",
        """
        Two daemons of the cluster run with one `[node] name`, often after a virtual machine was copied. The
        later one has the name; the earlier one goes on forwarding and offers nothing any more. Give each its
        own name and restart the earlier one.
        """,
    )
    ENGINE_UNREACHABLE = (
        "VM250",
        "The container engine does not answer",
        """
        The engine at `[source.docker] socket` does not answer, or not in time. The last list of containers
        stays in force, so that traffic goes on, and probes still prune what dies. See that it runs (`systemctl
        status docker`) and that the daemon's user may open the socket.
        """,
    )
    CONTAINER_UNUSABLE = (
        "VM251",
        "A container that cannot be an endpoint",
        """
        The container has labels of the mesh and no address that clients of the mesh could be sent to: it has no
        network, it shares that of a container which does not run, or other workers have no way to its network
        and its port is not published. The message says which; [Docker](docker.md) says where endpoints are
        reached.
        """,
    )
    CONTAINER_NOT_STOPPED = (
        "VM252",
        "A container that cannot be stopped or signalled",
        """
        `vipmesh stop`, or a drain before a stop, asked the engine for something that it refused; its own words
        are in the message. The container may have ended by itself meanwhile.
        """,
    )
    DRAIN_TIMEOUT = (
        "VM253",
        "A drain that takes too long",
        """
        Connections of the endpoint did not end within `[dataplane] drain_timeout`, or within the time that
        `docker stop` gives. They are cut then. A longer `--stop-timeout` (`stop_grace_period` in Compose) gives
        them time; a client that never closes needs a limit of its own.
        """,
    )
    NO_SUCH_ENDPOINT = (
        "VM254",
        "No such container or endpoint",
        """
        `drain`, `undrain` and `stop` work on what runs on this worker: name a container by its name or id, or
        an endpoint by the id that `vipmesh status` shows. For one that runs elsewhere, ask the worker where it
        runs.
        """,
    )
    PROBE_COMMAND_STUCK = (
        "VM255",
        "A probe's command that does not end",
        """
        A command that probes ran out of its time and could not be ended, or has not even begun. The engine is
        overloaded, or the process is stuck in the kernel. Until it has ended, no new one is started in that
        container.
        """,
    )
    NO_SOURCE = (
        "VM256",
        "No source of instances",
        """
        Neither `[source.docker] socket` nor `[source.compose] files` is set, so this worker runs no endpoints.
        It still routes to those of the others. What it registered before stays in force.
        """,
    )
    MASS_FAILURE = (
        "VM257",
        "A mass failure is suspected",
        """
        More than half of the endpoints of a service, or of all that one worker asks, stopped answering at once,
        while they answered a moment ago. What they have in common is likelier to be the cause than each of
        them, so pruning stops at a floor. Look at the network of the worker that asks, and at what the
        endpoints depend on. [What probes do](probes.md) has the rules, and how to have every verdict obeyed.
        """,
    )
    UNKNOWN_SETTING = (
        "VM301",
        "A setting that does not exist",
        """
        The file, or an environment variable that begins with `VIPMESH_`, names a setting that does not exist;
        the nearest one is in the message. Nothing starts with it, since what was meant would silently not hold.
        All are in [Settings](settings.md).
        """,
    )
    SETTING_VALUE = (
        "VM302",
        "A setting's value",
        """
        The value is not of the form that this setting has; the message says what to write. In an environment
        variable, lists are separated by commas.
        """,
    )
    SETTINGS_FILE_UNUSABLE = (
        "VM303",
        "A file of settings that cannot be used",
        """
        The file cannot be read, or is no TOML. Without `-c` the file is `/etc/vipmesh.toml`; if that does not
        exist, the defaults and the environment count.
        """,
    )
    SETTINGS_CONTRADICT = (
        "VM304",
        "Settings that contradict one another",
        """
        Each is right by itself, and together they cannot be: a domain is to be forwarded that this cluster
        answers itself, or the name server would forward to itself.
        """,
    )
    ADMIN_API_UNPROTECTED = (
        "VM305",
        "The admin API would be open to anybody",
        """
        Every client of the admin API can drain and stop containers. Over TCP it asks for a proof: set `[admin]
        token_file`, or `client_ca` together with `cert`. On a unix socket the mode of the file decides.
        """,
    )
    SETTINGS_NOT_APPLIED = (
        "VM306",
        "New settings that need a restart or cannot be followed",
        """
        After SIGHUP the daemon follows new settings in place. Settings that cannot be used change nothing, and
        settings with which nothing starts are given up for those before. The proxy in user space ends with its
        connections, so there it waits for a restart.
        """,
    )
    VIP_POOL_OVERLAPS = (
        "VM350",
        "The VIP pool overlaps the host's network",
        """
        A VIP would hide a real host that has the same address. The daemon does not start. Choose a network for
        `[vip] pool` that no route and no address of any worker overlaps; `ip route` and `ip address` show them.
        """,
    )
    DATA_PLANE_UNAVAILABLE = (
        "VM351",
        "A data plane that this host does not have",
        """
        `[dataplane] driver` asks for one that the kernel does not offer, or that is not permitted; the reason
        follows in the message. `auto` takes the next best one and says so.
        """,
    )
    DEMO_CANNOT_START = (
        "VM352",
        "The demo cannot start",
        """
        `vipmesh demo` plays instances on loopback addresses, so its compose file needs `x-endpoints` on
        127.0.0.0/8 whose ports are free. Another demo may run already.
        """,
    )
    SERVICE_MANAGER_UNREACHABLE = (
        "VM353",
        "The service manager cannot be told",
        """
        `NOTIFY_SOCKET` is set and cannot be written to, so systemd does not learn that the daemon is ready, and
        may end it. In a container, do not pass that variable on.
        """,
    )
    STORE_UNREACHABLE = (
        "VM401",
        "etcd does not serve",
        """
        No member of etcd answers as it should; the message has the reason for each. The last view stays in
        force: traffic, probes and names go on, nothing new is given away, and this worker's own endpoints still
        count for itself. See that the members run and have a majority (`etcdctl endpoint status --cluster`),
        and that their JSON gateway is on.
        """,
    )
    STORE_REFUSES = (
        "VM402",
        "etcd refuses",
        """
        etcd answers and will not do it: the user or password is wrong, the user lacks a permission, or the disk
        quota is used up. The words of etcd are in the message, with what to do. [The store](store.md) lists
        what it needs.
        """,
    )
    LEASE_LOST = (
        "VM403",
        "The lease of this worker",
        """
        What a worker offers depends on a lease that it renews. The lease ended although the worker is alive:
        etcd was away for longer than `[store] lease_ttl`, or the host was suspended. Everything is registered
        again at once; in between the other workers may have sent nothing here.
        """,
    )
    STORE_IN_USE = (
        "VM404",
        "A store that another process uses",
        """
        The embedded store has one worker, and its file is locked by the process that is named. A second daemon,
        or a `vipmesh teardown` while the daemon runs, is refused. Several workers share etcd instead.
        """,
    )
    STORE_UNUSABLE = (
        "VM405",
        "A store that cannot be used",
        """
        The file of the embedded store cannot be opened or written: the directory is missing or not this user's,
        the disk is full, or the file is damaged. The message has SQLite's or the system's own words. Without a
        store the daemon does not start; one that runs keeps the last view in force.
        """,
    )
    STORE_CREDENTIALS = (
        "VM406",
        "Secrets and certificates of the store",
        """
        `[store] user` needs a password (better in `VIPMESH_STORE_PASSWORD` than in the file), and `ca`, `cert`
        and `key` are PEM files that this user can read. A client certificate for etcd has an empty CN. The
        files are read again when no connection comes about, so a renewed certificate needs no restart; what
        cannot be used then is told, and the former one stays.
        """,
    )
    RECORD_UNREADABLE = (
        "VM407",
        "A record that cannot be read",
        """
        A key of the store holds what this version does not understand, or what no kernel could take. It is
        passed over, and stops no other. Delete the key, or restart the worker that wrote it, which then writes
        it again.
        """,
    )
    SAVED_VIEW = (
        "VM408",
        "The saved view",
        """
        With etcd the last view of the cluster is kept in `[store] saved_view`, for a start while etcd is away.
        It was used, or cannot be written or read. A damaged view can be deleted; it is written again.
        """,
    )
    STORE_LOST_DATA = (
        "VM409",
        "The store has lost what it knew",
        """
        etcd was emptied, or an older backup was put back. The workers give it back every claim that they know,
        before anything new is claimed, so that VIPs stay as they were. Claims that others got meanwhile cannot
        be given back; those services are refused and shown.
        """,
    )
    STORE_NOT_READ = (
        "VM410",
        "What cannot be read of the store at the start",
        """
        The store does not answer now; what was read last stays in force. If it did not answer at the start, the
        daemon does not know which endpoints an operator had drained: look at `vipmesh status`, and drain them
        again.
        """,
    )
    FROZEN = (
        "VM411",
        "A part is frozen",
        """
        Something that the daemon reads from does not answer. Its last good state stays in force; it never
        counts as empty. The message says what and why; `vipmesh status` lists it as `frozen` until it answers
        again.
        """,
    )
    RECORDS_CHANGED_OUTSIDE = (
        "VM412",
        "Records of this worker that it did not write",
        """
        What etcd holds under this worker's name is not what it wrote there last: keys were changed or deleted
        by hand, or etcd applied an older write late. It was written again. If the message repeats, find out
        which other program writes there; the records are repaired every two seconds.
        """,
    )
    ETCD_CLUSTERS_DIFFER = (
        "VM413",
        "Members of different clusters of etcd",
        """
        `[store] url` names members that do not belong together, and each of the two clusters would give away
        the same VIP. The cluster that more than half of the members name is used, and the others are not asked;
        without such a cluster the store counts as away. The numbers are those of `etcdctl endpoint status -w
        fields`. A newly created etcd cluster is used as soon as more than half of the members in the URL belong
        to it.
        """,
    )
    WORKER_ISOLATED = (
        "VM451",
        "This worker may be cut off",
        """
        Of the other workers and the members of the store it reaches less than half, and endpoints of others do
        not answer it. So it takes its own network for the likelier cause: a service that has no other endpoint
        keeps those that it does not reach. See to the network of this host; [the cluster](cluster.md) has what
        happens meanwhile.
        """,
    )
    LEASE_ENDED_WORKER_ANSWERS = (
        "VM452",
        "The store has lost a worker that answers",
        """
        The lease of that worker has ended, which is how etcd tells of a worker that is gone, but the worker
        answers. Its endpoints stay in traffic and are asked from here. See that it reaches etcd: its own
        `vipmesh status` says what it hears from there.
        """,
    )
    WORKER_UNREACHABLE = (
        "VM453",
        "A worker is out of reach",
        """
        Neither the daemon of that worker nor the endpoints of it that are named answer this worker, several
        times in a row. They get no new connection from here, and are back with their first answer. See that the
        host runs and is connected; if the others reach it, see to the way from this one.
        """,
    )
    PEER_LISTENER_UNAVAILABLE = (
        "VM454",
        "The other workers cannot ask for this one",
        """
        The address where this worker must answer the others is in use or is not an address of this host, or the
        names of the store's members do not resolve. Nothing else fails: if this worker is lost, the others
        notice it when its lease ends, some seconds later. `[peers] listen` is in [the settings](settings.md).
        """,
    )
    WORKER_DAEMON_GONE = (
        "VM455",
        "The daemon of a worker is gone",
        """
        Its lease has ended and it does not answer, but its endpoints do: so it is the daemon that is gone, and
        not the host. The other workers go on with the probes of these endpoints, for a minute; then they are
        taken out until the daemon is back, as those without a probe are already.
        """,
    )
    NO_IPVS = (
        "VM501",
        "No IPVS",
        """
        The kernel has no IPVS, or its module cannot be loaded. `modprobe ip_vs` on the host loads it; the cloud
        kernels of some distributions were built without it. With `[dataplane] driver = "auto"` nftables
        forwards instead: correct, with fewer schedulers.
        """,
    )
    NOT_PERMITTED = (
        "VM502",
        "Not permitted",
        """
        The daemon lacks a capability: `CAP_NET_ADMIN` to program the kernel, `CAP_NET_BIND_SERVICE` for ports
        below 1024. systemd gives them with `AmbientCapabilities`, Compose with `cap_add`. In a container the
        network must also be the host's. `vipmesh doctor` shows which are there.
        """,
    )
    NETLINK_FAILED = (
        "VM503",
        "Netlink does not answer, or not as it should",
        """
        The kernel did not answer a request about its tables, or with what is not understood. It is asked again
        at the next pass. If it stays, look into `dmesg`, and see that the sandbox (systemd's
        `RestrictAddressFamilies`, seccomp) allows `AF_NETLINK`.
        """,
    )
    NFT_FAILED = (
        "VM504",
        "nft",
        """
        Source NAT, and the nftables data plane, use the program `nft`. It is missing, it was refused, or it
        hangs; its first line is in the message. `apt-get install nftables`; the modules are `nf_tables`,
        `nft_ct`, `nft_masq` and those in [Data planes](dataplane.md).
        """,
    )
    VIP_INTERFACE = (
        "VM505",
        "The interface of the VIPs",
        """
        A VIP cannot be put on `mesh0`, or the interface cannot be read. Another program may manage that
        interface, such as NetworkManager or systemd-networkd: tell it to leave `mesh0` alone. The VIP's name
        does not resolve until it is bound.
        """,
    )
    OPERATION_REFUSED = (
        "VM506",
        "A virtual or real server that the data plane refuses",
        """
        One operation was refused; all others were carried out. Most often the kernel lacks the scheduler's
        module (`modprobe ip_vs_mh`), or the label asks for something that only IPVS can do. It is tried again
        at the next audit, 10 s later at the latest.
        """,
    )
    OUTSIDE_VIP_POOL = (
        "VM507",
        "Outside of the VIP pool",
        """
        The data plane touches nothing but the VIP pool and the published ports, so that other users of IPVS on
        the host are safe. After the pool was changed, services with an old fixed VIP need a new one.
        """,
    )
    CHANGED_OUTSIDE = (
        "VM508",
        "Somebody else changed the data plane",
        """
        Something other than vipmesh changed what the daemon had programmed, and the daemon repaired it. One
        line per repair says what was changed. If the message repeats, another program changes it again and
        again: a second load balancer, a configuration management tool, a firewall that flushes all rules.
        """,
    )
    LEFT_BY_EARLIER_START = (
        "VM509",
        "What an earlier start left",
        """
        The daemon was started with another driver before, and what that left in the kernel cannot be removed.
        Both forward meanwhile, to the same endpoints. The reason is in the message.
        """,
    )
    IPVS_TIMEOUT = (
        "VM510",
        "A timeout of IPVS",
        """
        IPVS forgets a TCP connection that is idle for 900 s, unless it is told otherwise, and could not be
        told. Long idle connections may break; keep-alives of the application below 15 minutes help.
        """,
    )
    NFTABLES_CONNECTIONS_UNSEEN = (
        "VM511",
        "Connections by nftables that cannot be seen",
        """
        The kernel does not tell which connections it tracks, or the label asks for something that nftables does
        in another way; the message says which. Draining then waits for its time and not for the last
        connection. `modprobe nf_conntrack_netlink` on the host.
        """,
    )
    KERNEL_SETTING = (
        "VM550",
        "Kernel settings",
        """
        A setting must have another value for VIPs to work, and cannot be written from here, as in most
        containers. Write the lines of the message to `/etc/sysctl.d/60-vipmesh.conf` on the host and run
        `sysctl --system`.
        """,
    )
    SOURCE_NAT = (
        "VM551",
        "Source NAT",
        """
        Replies of endpoints elsewhere, of a container that reaches itself, and to the host's own connections
        must come back through this worker; the table `vipmesh` in nftables sees to it and cannot be set up.
        Until then such connections hang. [Source NAT](source-nat.md) says which paths need it.
        """,
    )
    DNS_CANNOT_LISTEN = (
        "VM601",
        "The name server cannot listen",
        """
        An address of `[dns] listen`, or the resolver for containers, is taken, not permitted or not there.
        Often systemd-resolved or dnsmasq has port 53: `ss -lnup sport = 53` shows it, and `vipmesh doctor` says
        how to make room. An address that comes later is served then.
        """,
    )
    UPSTREAM_UNREACHABLE = (
        "VM602",
        "An upstream does not answer",
        """
        A name server that other names are forwarded to did not answer several times in a row. Others are asked
        first until it answers; names of the mesh are not affected. If it is the only one, stale answers are
        given for a while.
        """,
    )
    UPSTREAM_LOOP = (
        "VM603",
        "A loop of name servers",
        """
        Our name server forwards to one that forwards to us, so a query would loop. That upstream is not used.
        Set `[dns] upstream` to the servers that know the rest of the world, not to a local stub that asks us.
        """,
    )
    RESOLV_CONF = (
        "VM604",
        "resolv.conf",
        """
        `/etc/resolv.conf` cannot be read or names no server that could be asked, so the servers of before, or
        none, answer for other names. Set `[dns] upstream` to be independent of that file.
        """,
    )
    NO_RESOLVER_FOR_CONTAINERS = (
        "VM605",
        "No resolver for containers",
        """
        The first address of the VIP pool, where containers ask for names, cannot be put on the interface of the
        VIPs. Names resolve at `[dns] listen` alone. Run as root or with `CAP_NET_ADMIN`, or set `[dns] resolver
        = "off"`.
        """,
    )
    DAEMON_UNREACHABLE = (
        "VM651",
        "No daemon answers",
        """
        `status`, `explain`, `top`, `drain` and the like ask a running daemon, by default on
        `/run/vipmesh/admin.sock`. It does not run, it listens elsewhere (`--admin`, or `-c` with its settings),
        or this user may not open the socket (`sudo`, or its group).
        """,
    )
    ADMIN_API_CANNOT_LISTEN = (
        "VM652",
        "The admin API cannot listen",
        """
        The address or path of `[admin] listen` or `tcp` is taken or not permitted, or a certificate cannot be
        loaded. The daemon does not start without its admin API, since then nobody could ask what it does.
        """,
    )
    ADMIN_TOKEN = (
        "VM653",
        "The token",
        """
        `[admin] token_file` has one line with 16 characters or more and is readable by the daemon's user alone
        (`chmod 640`). A file that becomes unusable while the daemon runs leaves the last token in force. Over
        TCP without a certificate the token crosses the network in the clear.
        """,
    )
    REQUEST_REFUSED = (
        "VM654",
        "A request that was refused",
        """
        A client called the admin API without a token, or asked for something that cannot be done. Lines that
        begin with `audit:` name the client, the request and its result.
        """,
    )
    WATCHER_DISCONNECTED = (
        "VM655",
        "A watcher that is let go",
        """
        A client of `GET /v1/events`, such as the page, reads too slowly or not at all. It is disconnected so
        that no backlog grows; a browser reconnects by itself.
        """,
    )
    LOG_LINES_LOST = (
        "VM701",
        "Lines of the log were lost",
        """
        The reader of the daemon's standard error stopped reading, and the daemon does not wait for it. The lost
        lines are counted. `vipmesh status` shows everything that holds now.
        """,
    )
    LOG_LINES_SUPPRESSED = (
        "VM702",
        "Lines of the log were left out",
        """
        Of similar lines, a hundred are written at once and then five per second, so that they do not hide the
        one that matters. The next line of the kind says how many were left out. `vipmesh status` shows
        everything that holds now.
        """,
    )
    DOCTOR_VIP_POOL = (
        "VM801",
        "doctor: the VIP pool",
        """
        The pool overlaps a route or an address of this host, as in
        [VM350](#vm350-the-vip-pool-overlaps-the-hosts-network): the daemon would not start.
        """,
    )
    DOCTOR_STORE = (
        "VM802",
        "doctor: the store",
        """
        The directory of the embedded store cannot be written by this user, or a member of etcd cannot be
        reached from here. A single member that is away is a warning: the others serve.
        """,
    )
    DOCTOR_DATA_PLANE = (
        "VM803",
        "doctor: the data plane",
        """
        What the kernel and the program `nft` can do from here. Without IPVS, `auto` forwards by nftables,
        without that in user space. A scheduler whose module is missing refuses only the services that ask for
        it.
        """,
    )
    DOCTOR_CAPABILITIES = (
        "VM804",
        "doctor: capabilities",
        """
        The user who ran `vipmesh doctor` lacks a capability that the daemon needs. Run it as the daemon's user,
        or as root to see the whole.
        """,
    )
    DOCTOR_KERNEL_SETTINGS = (
        "VM805",
        "doctor: kernel settings",
        """
        A setting differs from what VIPs need. A hint if the daemon will set it itself; an error if it may not.
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
        The kernel takes ports of outgoing connections from a range that overlaps the published ones. Such a
        connection hides a published port for as long as it lives. Reserve them:
        `net.ipv4.ip_local_reserved_ports`.
        """,
    )
    DOCTOR_RESOLVER = (
        "VM808",
        "doctor: who resolves names",
        """
        The name servers that this host and its containers use. Routing names resolve only where the mesh's name
        server is asked; [Resolver set-up](howto/resolver.md) has the ways.
        """,
    )
    DOCTOR_CONTAINER_ENGINE = (
        "VM809",
        "doctor: the container engine",
        """
        The engine's socket cannot be opened: the engine does not run, or the user is not in its group.
        """,
    )
    DOCTOR_CLOCK = (
        "VM810",
        "doctor: the clock",
        """
        The clock is not synchronised. Certificates depend on it, and so does comparing the logs of several
        workers.
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
    ("VM801", "doctor"),
)
"""The first code of each section of the page, and the heading of the section."""

_INTRODUCTION = """\
# Errors

Every message ends with its code: `... the name web.local is held by shop/web; give it a name of its own [VM201]`. A
code keeps its meaning for good, while the wording may change. Programs find it as `code` in the output of `--json`, and
in each line of the log as `code=VM201`.

An **error** refuses the one thing that it names, a label, a service, an operation; everything else goes on.
`vipmesh explain NAME` shows its effect on a request. `vipmesh status` lists what holds now; what is over is in the log.

| codes | about |
|---|---|
| [VM1xx](#labels-and-compose-files) | labels and compose files |
| [VM2xx](#names-vips-ports-containers) | names, VIPs, published ports, containers |
| [VM3xx](#settings-and-start) | settings, the start |
| [VM4xx](#store) | the store |
| [VM5xx](#data-plane-and-host) | the data plane and the host |
| [VM6xx](#name-server-and-admin-api) | the name server, the admin API |
| [VM7xx](#log) | the log |
| [VM8xx](#doctor) | what `vipmesh doctor` finds |
"""


def errors_page() -> str:
    """The text of `docs/errors.md`, which explains every code."""
    headings = dict(_SECTIONS)
    parts = [_INTRODUCTION]
    for code in sorted(Code, key=str):
        if code.value in headings:
            parts.append(f"## {headings[code.value]}\n")
        parts.append(f"### {code} {code.title}\n")
        parts.append(f"{_wrapped(code.explanation)}\n")
    return "\n".join(parts)


def _wrapped(paragraph: str, width: int = 120) -> str:
    """The paragraph on lines of at most `width` characters."""
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
