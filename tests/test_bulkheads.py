"""Every handler of input runs in the bulkhead of its part: whatever hands a function to the event loop is found.

Commands of the command line and fakes of tests are no part of the daemon.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("mesh/cli/", "mesh/testing/")

HANDED_OVER = {
    "create_task": 0,
    "ensure_future": 0,
    "run_coroutine_threadsafe": 0,
    "call_soon": 0,
    "call_soon_threadsafe": 0,
    "call_later": 1,
    "call_at": 1,
    "add_done_callback": 0,
    "add_reader": 1,
    "add_writer": 1,
    "add_signal_handler": 1,
    "start_server": 0,
    "start_unix_server": 0,
    "Thread": -1,
    "Timer": -1,
}
"""Calls that hand a function or a coroutine over, and which argument it is; -1: there must be no such call."""
AWAITED = frozenset({"to_thread", "run_in_executor", "wrap_future"})
"""Calls whose exceptions are raised where they are awaited, which must be in place."""
HARMLESS = frozenset({"set", "discard", "cancel"})
"""Methods of the standard library that raise nothing."""
ROUTES = frozenset({"add_get", "add_post", "add_put", "add_delete", "add_route", "add_routes", "add_view"})
CONTAINED_ROUTES = ("mesh/api/http/server.py", "mesh/api/http/page.py", "mesh/platform/logs/ship_server.py")
"""Modules whose routes are behind a middleware that contains each request."""
HARMLESS_IN_PROTOCOLS = frozenset({"cast", "get_extra_info", "abort", "close", "str", "bool", "contain", "time"})
"""Calls that raise nothing, for protocol methods that are not contained as a whole."""
PROTOCOL_METHODS = frozenset(
    {
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "pause_writing",
        "resume_writing",
        "datagram_received",
        "error_received",
        "buffer_updated",
    }
)
IN_PLACE = {
    ("mesh/store/etcd/client.py", "_choose"): "it awaits them, and asks each for its exception",
    ("mesh/store/cached.py", "watch"): "it awaits the snapshot",
    ("dns/meshdns/thread.py", "start"): "`stop` awaits the thread, and raises what it has raised",
    ("dns/meshdns/thread.py", "_serve"): "it sets an event",
    ("dns/meshdns/tcp.py", "_forward"): "`_forwarded` has its parts in bulkheads",
    ("mesh/daemon/loss_finder.py", "on_ports"): "the thread that calls it awaits the result",
    ("mesh/util/bulkhead.py", "contain_event_loop"): "it is the bulkhead",
}
"""Places where nothing can be lost, and why. The function is the innermost one."""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """A source file, with what the rules need to know of it."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, Function)}

    def function_of(self, node: ast.AST) -> Function | None:
        """The innermost function around a node."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, Function):
                return node
        return None

    def offences(self) -> Iterator[str]:
        """Each place that hands something over outside of a bulkhead."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield from self._of_call(node)
            elif isinstance(node, ast.ClassDef):
                yield from self._of_protocol(node)

    def _of_call(self, call: ast.Call) -> Iterator[str]:
        name = _called(call.func)
        around = self.function_of(call)
        where = f"{self.name}:{call.lineno}: {name}"
        if around is not None and (self.name, around.name) in IN_PLACE:
            return
        if name in AWAITED:
            if not isinstance(self.parents[call], ast.Await) and not self._is_in_bulkhead(call):
                yield where
        elif name in HANDED_OVER:
            at = HANDED_OVER[name]
            if at < 0 or len(call.args) <= at or not self._is_contained(call.args[at], around):
                yield where
        elif name in ROUTES and self.name not in CONTAINED_ROUTES:
            yield where
        elif name == "Application":
            middlewares = next((k.value for k in call.keywords if k.arg == "middlewares"), None)
            if not isinstance(middlewares, ast.List) or not ast.unparse(middlewares.elts[0]).startswith("_contained"):
                yield where

    def _is_in_bulkhead(self, call: ast.Call) -> bool:
        """Whether it is an argument of `bulkhead.run`."""
        parent = self.parents[call]
        return isinstance(parent, ast.Call) and _is_of_bulkhead(parent)

    def _is_contained(self, handed: ast.expr, around: Function | None) -> bool:
        if isinstance(handed, ast.Call):
            return _is_of_bulkhead(handed)
        if isinstance(handed, ast.Attribute) and handed.attr in HARMLESS:
            return True
        name = _called(handed)
        function = self.functions.get(name)
        if function is not None and _contains_itself(function):
            return True
        assigned = [
            node.value
            for node in ast.walk(around or self.tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(handed, ast.Name) and isinstance(target, ast.Name) and target.id == handed.id
        ]
        return bool(assigned) and all(isinstance(a, ast.Call) and _is_of_bulkhead(a) for a in assigned)

    def _of_protocol(self, node: ast.ClassDef) -> Iterator[str]:
        for method in node.body:
            if (
                isinstance(method, Function)
                and method.name in PROTOCOL_METHODS
                and not _contains_itself(method)
                and not self._only_calls_contained(method)
            ):
                yield f"{self.name}:{method.lineno}: {node.name}.{method.name}"

    def _only_calls_contained(self, method: Function) -> bool:
        """Whether each call in it that can raise is of a method that contains itself, or within a bulkhead."""
        calls = [_called(each.func) for each in ast.walk(method) if isinstance(each, ast.Call)]
        return all(
            name in HARMLESS_IN_PROTOCOLS
            or (name in self.functions and _contains_itself(self.functions[name]))
            or _is_within_contain(method, name)
            for name in calls
        )


def _is_within_contain(method: Function, name: str) -> bool:
    """Whether all calls of this name in the method are within `with bulkhead.contain(...)`."""
    inside = [
        _called(each.func)
        for block in ast.walk(method)
        if isinstance(block, ast.With) and any(_is_of_bulkhead(item.context_expr) for item in block.items)
        for statement in block.body
        for each in ast.walk(statement)
        if isinstance(each, ast.Call)
    ]
    outside = [_called(each.func) for each in ast.walk(method) if isinstance(each, ast.Call)]
    return inside.count(name) == outside.count(name)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_of_bulkhead(node: ast.expr) -> bool:
    """Whether it is `bulkhead.run(...)` or another method of a bulkhead that makes something contained."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"run", "keep_running", "callback", "contain"}
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "bulkhead"
    )


def _contains_itself(function: Function) -> bool:
    """Whether all of it runs in a bulkhead: it is decorated, or does nothing outside of `with bulkhead.contain(...)`
    but act on the failure.
    """
    if any(ast.unparse(decorator) == "bulkhead.method" for decorator in function.decorator_list):
        return True
    body = [each for each in function.body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
    if not body:
        return True
    first, *rest = body
    if not isinstance(first, ast.With) or not any(_is_of_bulkhead(item.context_expr) for item in first.items):
        return False
    return all(isinstance(each, ast.If) and ast.unparse(each.test).endswith(".failed") for each in rest)


def modules() -> list[Module]:
    return [
        Module(name, path.read_text())
        for folder in ("mesh", "dns/meshdns")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not (name := str(path.relative_to(ROOT))).startswith(LEFT_OUT)
    ]


def test_everything_that_the_event_loop_calls_runs_in_a_bulkhead() -> None:
    found = modules()
    assert len(found) > 200, "the packages were not found"
    assert [offence for module in found for offence in module.offences()] == []


def test_each_exception_to_the_rule_is_needed() -> None:
    known = {(module.name, name) for module in modules() for name in module.functions}
    assert IN_PLACE.keys() <= known


def test_an_exception_is_caught_in_bulkheads_alone() -> None:
    """A bare `except Exception` elsewhere would hide what a bulkhead counts."""
    found = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and node.type is not None
        and ast.unparse(node.type) in {"Exception", "BaseException"}
        and not any(isinstance(each, ast.Raise) for each in ast.walk(node))
        and not any(isinstance(each, ast.Call) and _called(each.func) in REPORTS for each in ast.walk(node))
        and not any(isinstance(each, ast.Assign | ast.Expr) and "failed" in ast.unparse(each) for each in node.body)
    ]
    assert found == [
        place for place in found if place.startswith(("mesh/control/planner.py", "mesh/util/bulkhead.py"))
    ], "each must report to its bulkhead"


REPORTS = frozenset({"caught", "part_ended", "_failed"})

BAD = (
    "def f(loop):\n    loop.call_soon(g)",
    "def f(tasks):\n    tasks.create_task(g())",
    "def f(tasks):\n    work = g()\n    tasks.create_task(work)",
    "def f(loop, fd):\n    loop.add_reader(fd, self._read)",
    "async def f():\n    asyncio.to_thread(g)",
    "class P(asyncio.Protocol):\n    def data_received(self, data):\n        self.parse(data)",
    "def f(app):\n    app.router.add_get('/', g)",
    "app = web.Application(middlewares=[other])",
    "threading.Thread(target=f)",
    "def f(task):\n    task.add_done_callback(lambda _: g())",
    "def h():\n    with bulkhead.contain('x'):\n        g()\n    g()\ndef f(loop):\n    loop.call_soon(h)",
)
GOOD = (
    "def f(loop):\n    loop.call_soon(bulkhead.callback(g))",
    "def f(tasks):\n    tasks.create_task(bulkhead.keep_running('x', g))",
    "def f(tasks):\n    work = bulkhead.run('x', g)\n    tasks.create_task(work)",
    "async def f():\n    await asyncio.to_thread(g)",
    "class P(asyncio.Protocol):\n    @bulkhead.method\n    def data_received(self, data):\n        self.parse(data)",
    "def h():\n    with bulkhead.contain('x') as c:\n        g()\n    if c.failed:\n        a()\nloop.call_soon(h)",
    "def f(loop, event):\n    loop.add_reader(1, event.set)",
    "app = web.Application(middlewares=[_contained, other])",
)


@pytest.mark.parametrize("source", BAD)
def test_what_is_outside_of_a_bulkhead_is_found(source: str) -> None:
    assert list(Module("x.py", source).offences())


@pytest.mark.parametrize("source", GOOD)
def test_what_is_in_a_bulkhead_is_not_found(source: str) -> None:
    assert not list(Module("x.py", source).offences())
