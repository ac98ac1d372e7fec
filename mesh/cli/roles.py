"""`vipmesh cluster roles`: prints the lines that give each worker a role of its own in etcd."""

import argparse

from mesh.cli.documents import RolesDocument
from mesh.cli.output import print_json, printable, report_failure
from mesh.cli.settings import load_settings
from mesh.cluster.records.encode import CLAIMS_PREFIX, own_prefixes
from mesh.config.etcd_url import parse_etcd_url
from mesh.config.values import parse_host_name
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.platform.autoscaling.usage_records import usage_key
from mesh.platform.rollouts.evidence_records import evidence_key
from mesh.platform.stacks.kept_deploys import STACKS_PREFIX
from mesh.store import ACTING_KEY
from mesh.store.etcd.roles import role_lines, role_name

_SHARED = (CLAIMS_PREFIX, STACKS_PREFIX, "origin", ACTING_KEY)
"""What every worker writes beside its own records: claims, the last deploys of stacks, the key that says which life of
the store it is, and the one that says who acts for the swarm.
"""


def roles(options: argparse.Namespace) -> int:
    """Run `vipmesh cluster roles`, which changes nothing.

    Exit status 1 if the store is not etcd or a worker has no valid name.
    """
    settings = load_settings(options.config)
    if settings.store_url.startswith("sqlite:"):
        reason = f"the store {settings.store_url} is the file of one worker and has no roles; set [store] url to etcd"
        return report_failure(options, [CodedText(reason, Code.NO_ROLES)])
    prefix = parse_etcd_url(settings.store_url).prefix
    lines: list[str] = []
    for worker in options.workers or [settings.node_name]:
        try:
            parse_host_name(worker)
        except ValueError as error:
            reason = f"{error}; write the [node] name of a worker"
            return report_failure(options, [CodedText(reason, Code.NO_ROLES)])
        beside = {"usage": (usage_key(worker),), "evidence": (evidence_key(worker),)}
        lines += role_lines(prefix, role_name(prefix, worker), own_prefixes(worker), _SHARED, **beside)
    if options.json:
        print_json(RolesDocument(tuple(lines)))
    else:
        for line in lines:
            print(printable(line))
    return 0
