"""Codes of messages about what users write and run: labels, compose files, names, containers. See `mesh/codes/`."""

from mesh.model.codes.table import Table

LABELS: Table = {
    "VM101": ("A label that does not exist", ("there is no such label",)),
    "VM102": ("A label that is not handled yet", ("it is not handled yet",)),
    "VM103": ("A label under both prefixes, with different values", ("they are the same label",)),
    "VM104": ("A label without effect", ("it has no effect",)),
    "VM105": ("The label's port or transport", ("is not a port", "is not a transport")),
    "VM110": (
        "A routing name that is no DNS name",
        (
            "is not a DNS name",
            "is not ASCII",
            "is a wildcard",
            "has no domain",
            "is a number, not a name",
            "is an address, not a name",
            "has an empty part",
            "the name {} has {} characters",
            "of the name has {} characters",
            "no name is given",
        ),
    ),
    "VM111": (
        "A routing name with a path or a scheme",
        ("has a path, and the mesh", "the scheme ", "does not fit a label for"),
    ),
    "VM112": ("Two labels that want one port of the VIP", ("of the VIP already leads to",)),
    "VM113": ("Two labels that publish one port", ("is already published for container port",)),
    "VM114": ("A fixed VIP that cannot be one", ("cannot be a VIP", "is outside of the VIP pool", "is not an address")),
    "VM115": ("A scheduler or its flags", ("is not a scheduler", "is not a flag of a scheduler", "has no flags")),
    "VM116": ("A way of forwarding that does not fit", ("is not a way of forwarding", "leaves the port as it is")),
    "VM117": (
        "A number or time out of range",
        ("is out of range", "is not a time", "is above routing.max_connections"),
    ),
    "VM118": ("A release's name", ("is not the name of a release",)),
    "VM120": (
        "A probe that cannot be asked",
        (
            "is not the URL of a probe",
            "is not asked, the endpoint is",
            "has no port",
            "has a path, and {}://",
            "needs something to send",
            "is not the path of a request",
            "is not a range of HTTP statuses",
            "is not a command",
        ),
    ),
    "VM121": (
        "A probe that takes longer than its interval",
        ("but the next is due after", "are longer than the interval of"),
    ),
    "VM122": ("A command as a probe where no engine runs", ("no engine runs this endpoint",)),
    "VM123": ("Something is written twice", ("is there twice", "and again on line")),
    "VM125": (
        "What a probe sends, or looks for",
        (
            "is not a method of a probe",
            "is not a host",
            "is not the name of a header",
            "is the probe's own",
            "cannot be sent in a header",
            "an answer to HEAD has no body",
            "cannot be looked for",
            "octets are no datagram",
            "stands for nothing",
            "is neither; write true or false",
        ),
    ),
    "VM124": ("Instances whose labels differ", ("declare another service than", "declares it otherwise than worker")),
}
FILES: Table = {
    "VM150": (
        "A compose file that is not YAML, or not within bounds",
        (
            "not YAML:",
            "the file is larger than",
            "is nested more than",
            "merges itself",
            "anchors merge one another",
            "a key is not text",
            "merges what is not a mapping",
            "aliases expand to more",
            "it cannot be read: {}; name a file that exists",
            "it is not UTF-8",
        ),
    ),
    "VM151": (
        "A compose file of another shape",
        (
            "it is empty",
            "it is not a mapping",
            "it has no services",
            "services is not a mapping",
            "it is no service",
            "is not a project name",
            "is not the name of a service",
            "it is no mapping and no list",
            "it is not a list",
            "the value is not one text",
        ),
    ),
    "VM152": ("Something that is not followed", ("is not followed",)),
    "VM153": ("A value that YAML changes", ("without quotes ",)),
    "VM154": (
        "A variable in a compose file",
        (
            "variables are nested more than",
            "begins no variable",
            "is not closed",
            "is not a variable",
            "is required",
            "is not set and counts as empty",
        ),
    ),
    "VM155": ("An endpoint's address", ("is not the address of one instance", "is not an address; write ADDRESS")),
}
CLAIMS: Table = {
    "VM201": (
        "A name that another service holds",
        ("the name {} is held by", "the name {} is already claimed by service"),
    ),
    "VM202": (
        "A VIP that another service holds",
        (
            "the VIP {} is held by",
            "the VIP {} is outside of the pool",
            "which no service gets",
            "the VIP {} is already claimed by",
        ),
    ),
    "VM203": (
        "A published port that another service holds",
        ("the published {} port {} is held by", "the published {} port {} is already claimed by"),
    ),
    "VM204": ("No VIP or published port is left", ("are given away",)),
    "VM205": ("A published port that a program listens on", ("a program of this worker listens on it",)),
    "VM206": ("Two daemons with one name", ("another daemon runs with the name",)),
}
DOCKER: Table = {
    "VM250": ("The container engine does not answer", ("docker engine at ",)),
    "VM251": (
        "A container that cannot be an endpoint",
        (
            "labels of the mesh or one that is too long",
            "its project or service is called",
            "address that this worker can reach",
            "whose network it shares",
            "cannot reach its network",
            "which is not known",
        ),
    ),
    "VM252": (
        "A container that cannot be stopped or signalled",
        ("cannot be stopped", "cannot be signalled", "no container engine runs "),
    ),
    "VM253": ("A drain that takes too long", ("is not drained after", "is still programmed after")),
    "VM254": ("No such container or endpoint", ("no container or endpoint ",)),
    "VM255": ("A probe's command that does not end", ("has not begun in its time", "could not be ended")),
    "VM257": ("A mass failure is suspected", ("endpoints fail at once, so",)),
    "VM256": ("No source of instances", ("no source of instances",)),
}

CODES: Table = LABELS | FILES | CLAIMS | DOCKER
