"""Keeps a plugin from leaking an event loop.

looptime asks the policy for its loop around every test, those without a loop as well; up to Python 3.13 the first ask
in the main thread makes one, which nobody closes. Once told that there is none, the policy makes none.
"""

import asyncio

asyncio.set_event_loop(None)
