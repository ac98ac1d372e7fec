"""The expected answers of the name server, assembled by dnslib from text: the second opinion on every answer.

It shares nothing with the server but the rules: names are text, records are dnslib's, the zone is searched from end
to end.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address

from dnslib import AAAA, EDNS0, NS, PTR, QTYPE, RCODE, RR, SOA, SRV, TXT, A, DNSHeader, DNSLabel, DNSRecord
from dnslib.dns import RD

from meshdns.service_records import DnsService

TTL, SERIAL = 5, 7


def records(services: Mapping[str, DnsService]) -> dict[str, list[tuple[str, RD]]]:
    """Every name of the zone that has something, or would have."""
    found: dict[str, list[tuple[str, RD]]] = {}
    for name, service in services.items():
        target = f"{name}."
        for place, some in _brought(target, service):
            if len(place) <= 254 and place[:-1] not in services:
                found.setdefault(place, []).extend(some)
        own = found.setdefault(target, [])
        own.extend(map(_address, service.addresses))
        if service.about:
            own.append(("TXT", TXT([word.encode()[:255] for word in service.about])))
    return found


def _brought(target: str, service: DnsService) -> Iterator[tuple[str, list[tuple[str, RD]]]]:
    if service.endpoints:
        yield f"tasks.{target}", [_address(e.address) for e in service.endpoints if e.serving]
    for endpoint in service.endpoints:
        if endpoint.label != "tasks":
            yield f"{endpoint.label}.{target}", [_address(endpoint.address)]
    for endpoint in service.endpoints:
        if endpoint.label != "tasks" and endpoint.about:
            yield f"{endpoint.label}.{target}", [("TXT", TXT([word.encode()[:255] for word in endpoint.about]))]
    for port in service.ports:
        yield f"_{port.number}._{port.transport}.{target}", [("SRV", SRV(0, 0, port.number, target))]
    if service.canonical:
        for address in service.addresses:
            yield f"{ip_address(address).reverse_pointer}.", [("PTR", PTR(target))]


def _address(text: str) -> tuple[str, RD]:
    return ("AAAA", AAAA(text)) if ":" in text else ("A", A(text))


def apex_of(name: str, services: Mapping[str, DnsService], domains: Sequence[str]) -> str | None:
    """The own domain that a name is in: the shortest of the given ones and the services' names."""
    reverse = [
        ip_address(address).reverse_pointer
        for service in services.values()
        if service.canonical
        for address in service.addresses
    ]
    given = [f"{domain}." for domain in domains if name == f"{domain}." or name.endswith(f".{domain}.")]
    if given:
        return max(given, key=len)
    others = [f"{o}." for o in (*services, *reverse) if name == f"{o}." or name.endswith(f".{o}.")]
    return min(others, key=len) if others else None


def answer(packet: bytes, services: Mapping[str, DnsService], domains: Sequence[str]) -> DNSRecord | None:
    """The whole answer, however large; None: the name is not ours. For a question that is well formed."""
    query = DNSRecord.parse(packet)
    header = query.header
    reply = DNSRecord(DNSHeader(id=header.id, bitmap=0, qr=1, opcode=header.opcode, rd=header.rd, ra=1, aa=0))
    reply.header.cd = header.cd
    reply.add_question(query.q)
    opt = next((record for record in query.ar if record.rtype == QTYPE.OPT), None)
    if opt is not None:
        reply.add_ar(EDNS0(udp_len=1232, flags="do" if opt.edns_do else ""))
    if header.opcode:
        reply.header.rcode = RCODE.NOTIMP
    elif opt is not None and opt.edns_ver:
        reply.ar[0].ttl |= 1 << 24
    elif query.q.qclass not in (1, 255) or query.q.qtype in (QTYPE.AXFR, QTYPE.IXFR):
        reply.header.rcode = RCODE.REFUSED
    else:
        return _own(reply, str(query.q.qname).lower(), services, domains)
    return reply


def _own(reply: DNSRecord, name: str, services: Mapping[str, DnsService], domains: Sequence[str]) -> DNSRecord | None:
    apex = apex_of(name, services, domains)
    if apex is None:
        return None
    zone = records(services)
    reply.header.aa = 1
    home = f"{domains[0]}." if domains else apex
    soa = SOA(f"ns.{home}", f"hostmaster.{home}", (SERIAL, 3600, 600, 86400, TTL))
    here = list(zone.get(name, []))
    if name == apex:
        here = [("SOA", soa), ("NS", NS(f"ns.{home}")), *here]
    wanted = QTYPE[reply.q.qtype]
    if wanted == "ANY" and here:
        kinds = [kind for kind, _ in here]
        wanted = next((kind for kind in ("A", "AAAA") if kind in kinds), kinds[0])
    for kind, data in here:
        if kind == wanted:
            reply.add_answer(RR(reply.q.qname, getattr(QTYPE, kind), rdata=data, ttl=TTL))
    if not reply.rr:
        exists = name == apex or any(other == name or other.endswith(f".{name}") for other in zone)
        reply.header.rcode = RCODE.NOERROR if exists else RCODE.NXDOMAIN
        asked = str(reply.q.qname)  # the owner's name is the end of the question's, in the case that it has there
        reply.add_auth(RR(DNSLabel(asked[len(asked) - len(apex) :]), QTYPE.SOA, rdata=soa, ttl=TTL))
    return reply
