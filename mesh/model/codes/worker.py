"""Codes of messages about a worker: settings, store, data plane, host, name server, admin API. See `mesh/codes/`."""

from mesh.model.codes.table import Table

SETTINGS: Table = {
    "VM301": ("A setting that does not exist", ("no such setting",)),
    "VM302": (
        "A setting's value",
        (
            "is not a text",
            "is not a host name",
            "is not a domain name",
            "has room for no more than",
            "is not a number from",
            "is not a range of ports",
            "does not rise from",
            "is not a data plane driver",
            "is not an address of endpoints",
            "is not a list",
            "is not ADDRESS:PORT",
            "has a port above",
            "has no server",
            "has no port",
            "has no domain",
            "stands there twice",
            "is not the URL of a store",
            "is not the address of a container engine",
            "is not an absolute path",
            "a URL is shown in logs",
            "is not the URL of an etcd cluster",
            "has characters that are not letters",
            "is not HOST:PORT",
            "has no port from 1",
            "does not appear to be an IPv4",
            "has host bits set",
            "is no address that other workers can ask",
        ),
    ),
    "VM303": ("A file of settings that cannot be used", ("not TOML:", "name a TOML file with -c")),
    "VM304": (
        "Settings that contradict one another",
        ("are answered here and never forwarded", "is this name server itself, see [dns]"),
    ),
    "VM305": (
        "The admin API would be open to anybody",
        ("could drain and stop containers", "certificates of clients need one"),
    ),
    "VM306": (
        "New settings that need a restart or cannot be followed",
        ("changed settings need a restart", "the settings stay as they were", "back to the settings before"),
    ),
}
START: Table = {
    "VM350": ("The VIP pool overlaps the host's network", ("[vip] pool {} overlaps",)),
    "VM351": ("A data plane that this host does not have", ("[dataplane] driver is ",)),
    "VM352": (
        "The demo cannot start",
        (
            "name a compose file: vipmesh demo FILE",
            "the demo has nothing to start",
            "the demo starts instances on",
            "the demo cannot start an instance",
        ),
    ),
    "VM353": ("The service manager cannot be told", ("the service manager at ",)),
}
STORE: Table = {
    "VM401": (
        "etcd does not serve",
        (
            "etcd does not serve",
            "its JSON gateway is off",
            "answers what no etcd does",
            "ended the watch",
            "no answer within ",
            "hung up within an answer",
            "etcd: ",
        ),
    ),
    "VM402": ("etcd refuses", ("etcd refuses",)),
    "VM403": ("The lease of this worker", ("lease of this worker", "etcd ends the lease")),
    "VM404": ("A store that another process uses", ("store {} is in use by process ",)),
    "VM405": (
        "A store that cannot be used",
        (
            "the store is closed",
            "is closed; restart the daemon",
            "set [store] url to",
            "store /",
        ),
    ),
    "VM406": (
        "Secrets and certificates of the store",
        (
            "[store] user has no password",
            "[store] ca ",
            "certificate and its private key",
            "certificates for etcd cannot be read again",
        ),
    ),
    "VM407": ("A record that cannot be read", ("it cannot be read: ",)),
    "VM408": ("The saved view", ("saved view ", "the store is away: starting with what was saved")),
    "VM409": ("The store has lost what it knew", ("the store has lost what it knew", "claims could not be given back")),
    "VM410": (
        "What cannot be read of the store at the start",
        ("drains that were asked for before the start", "what was read last stays in force"),
    ),
    "VM411": ("A part is frozen", ("the last good state stays in force", "the last list stays in force")),
    "VM412": ("Records of this worker that it did not write", ("records of this worker are not what it wrote",)),
    "VM413": (
        "Members of different clusters of etcd",
        (
            "are of different clusters of etcd",
            "another cluster of etcd than before",
            "is of another cluster of etcd than most",
            "answers for another cluster of etcd",
        ),
    ),
}
PEERS: Table = {
    "VM451": (
        "This worker may be cut off",
        ("it reaches less than half of the other workers",),
    ),
    "VM452": ("The store has lost a worker that answers", ("its lease in the store has ended, but it answers",)),
    "VM453": ("A worker is out of reach", ("it does not answer this worker, nor do endpoints of it",)),
    "VM454": (
        "The other workers cannot ask for this one",
        ("for the other workers: ", "its loss is noticed when its lease ends", "the names in it do not resolve"),
    ),
    "VM455": ("The daemon of a worker is gone", ("its daemon is gone, and its endpoints answer",)),
}
DATA_PLANE: Table = {
    "VM501": ("No IPVS", ("this kernel offers no IPVS",)),
    "VM502": (
        "Not permitted",
        (
            "not permitted to program",
            "is not permitted (",
            "not permitted: run as root",
            "not permitted; give CAP_NET_BIND_SERVICE",
            "not permitted to see",
        ),
    ),
    "VM503": (
        "Netlink does not answer, or not as it should",
        (
            "netlink socket",
            "did not answer",
            "is not understood",
            "dropped answers",
            "changed all the time",
            "refuses to show",
            "refuses to answer",
            "cannot be looked up",
        ),
    ),
    "VM504": ("nft", ("there is no program nft", "nft cannot be run", "nft did not end", "nft refuses")),
    "VM505": (
        "The interface of the VIPs",
        (
            "the VIP interface cannot be read",
            "VIP {} cannot be ",
            "went away as soon as",
            "is outside 127.0.0.0/8",
            "stays bound",
        ),
    ),
    "VM506": (
        "A virtual or real server that the data plane refuses",
        (
            "lacks the IPVS scheduler",
            "cannot balance ",
            "there is no virtual server",
            "is not behind ",
            "IPVS cannot send to",
            "no memory left",
            "IPVS refuses",
            "is of another IP version",
            "data plane cannot do",
            "cannot be listened on",
        ),
    ),
    "VM507": ("Outside of the VIP pool", ("is outside the VIP pool",)),
    "VM508": ("Somebody else changed the data plane", ("repaired: ",)),
    "VM509": ("What an earlier start left", ("of an earlier start", "since an earlier start")),
    "VM510": ("A timeout of IPVS", ("IPVS TCP timeout stays",)),
    "VM511": (
        "Connections by nftables that cannot be seen",
        ("data plane nftables: ", "does not tell of tracked connections"),
    ),
}
HOST: Table = {
    "VM550": ("Kernel settings", (" must be {}: it ",)),
    "VM551": ("Source NAT", ("source NAT cannot be set up", "the nftables table ")),
}
DNS: Table = {
    "VM601": ("The name server cannot listen", ("dns: cannot listen on", "this host does not have the address")),
    "VM602": ("An upstream does not answer", ("does not answer; others are asked first",)),
    "VM603": ("A loop of name servers", ("asks us what we ask it", "is this name server itself and is not asked")),
    "VM604": ("resolv.conf", ("other names are asked of",)),
    "VM605": ("No resolver for containers", ("no resolver for containers",)),
}
ADMIN: Table = {
    "VM651": ("No daemon answers", ("no daemon answers on",)),
    "VM652": ("The admin API cannot listen", ("admin API: cannot listen", "cert, key and client_ca are PEM")),
    "VM653": (
        "The token",
        (
            "write a token: ",
            "a token is ",
            "the token stays as it was",
            "can be read by everybody",
            "token_file ",
            "the token goes to",
        ),
    ),
    "VM654": ("A request that was refused", ("audit: ", "refused: no token")),
    "VM655": ("A watcher that is let go", ("watches and takes nothing", "watches and reads too slowly")),
}
LOG: Table = {
    "VM701": ("Lines of the log were lost", ("log lines were lost",)),
    "VM702": ("Lines of the log were left out", ("lines like the next one were left out",)),
}

DOCTOR: Table = {
    "VM801": ("doctor: the VIP pool", ()),
    "VM802": ("doctor: the store", ()),
    "VM803": ("doctor: the data plane", ()),
    "VM804": ("doctor: capabilities", ()),
    "VM805": ("doctor: kernel settings", ()),
    "VM806": ("doctor: the port of the name server", ()),
    "VM807": ("doctor: published ports", ()),
    "VM808": ("doctor: who resolves names", ()),
    "VM809": ("doctor: the container engine", ()),
    "VM810": ("doctor: the clock", ()),
}
"""What is found has its code from what it is about: `mesh/cli/doctor/rules.py`."""

CODES: Table = SETTINGS | START | STORE | PEERS | DATA_PLANE | HOST | DNS | ADMIN | LOG | DOCTOR
