"""The Autobahn case list as Python 3 modules.

The PyPI package `autobahntestsuite` installs everywhere but is Python 2 code, and what runs it is long gone. The cases
themselves need little: their files are read, a dozen idioms are replaced, and the result is imported under the names the
cases use among themselves. `Cases` is the list, in the suite's order; `number` is what its documentation calls a case.
"""

import importlib.abc
import importlib.util
import os
import re
import sys

from autobahn.websocket.utf8validator import Utf8Validator as _Validator


def octets(text):
    """The cases keep octets in strings, one letter each."""
    return text.encode("latin-1") if isinstance(text, str) else text


def letters(data):
    """What the cases expect to be given: octets as a string."""
    return data.decode("latin-1") if isinstance(data, (bytes, bytearray)) else data


class Utf8Validator(_Validator):
    def validate(self, data):
        return super().validate(octets(data))


FOLDER = os.path.join(os.path.dirname(importlib.util.find_spec("autobahntestsuite").origin), "case")

# Python 2 on the left, what it means today on the right.
IDIOMS = [
    ("xrange(", "range("),
    ("unichr(", "chr("),
    ("(object, Case, )", "(Case,)"),
    ("binascii.b2a_hex(", "_hex("),
    ('pkg_resources.resource_filename("autobahntestsuite", ', "_resource("),
    (", pkg_resources", ""),
    # A case the suite names and never had.
    ("from case9_9_1 import *", ""),
    ("len(self.payload) / self", "len(self.payload) // self"),
    # The payload may be bytes or letters, and so must be what is made of it.
    ("msg = ''\n", "msg = payload[:0]\n"),
    # Parameters that the client library has renamed.
    ("requestNoContextTakeover =", "request_no_context_takeover ="),
    ("requestMaxWindowBits =", "request_max_window_bits ="),
    ("x.requestNoContextTakeover", "x.request_no_context_takeover"),
    ("x.requestMaxWindowBits", "x.request_max_window_bits"),
]


def translated(path):
    """The code of one file of the suite."""
    with open(path, encoding="latin-1") as file:
        source = file.read()
    source = re.sub(r"coding[=:]\s*\S+", "", source, count=1)
    source = re.sub(r"^(\s*)print (.*)$", r"\1print(\2)", source, flags=re.M)
    source = re.sub(r"^from autobahn.websocket.utf8validator import.*$", "Utf8Validator = _Utf8", source, flags=re.M)
    for old, new in IDIOMS:
        source = source.replace(old, new)
    return compile(source, path, "exec")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `case1_1_1` and the like."""

    def find_spec(self, name, path=None, target=None):
        file = os.path.join(FOLDER, name + ".py")
        if name.startswith("case") and os.path.exists(file):
            return importlib.util.spec_from_loader(name, self, origin=file)
        return None

    def exec_module(self, module):
        names = {
            "_hex": lambda data: octets(data).hex(),
            "_Utf8": Utf8Validator,
            "_resource": lambda name: os.path.join(os.path.dirname(FOLDER), name),
        }
        module.__dict__.update(names)
        exec(translated(module.__spec__.origin), module.__dict__)


sys.meta_path.insert(0, Finder())
_suite = {"__name__": "cases_of_autobahn"}
exec(translated(os.path.join(FOLDER, "__init__.py")), _suite)

Cases = _suite["Cases"]


def _plain(value):
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else letters(value)


# What a case saw and what it expects are compared whatever they are kept in.
_suite["Case"].compare = lambda self, seen, expected: _plain(seen) == _plain(expected)


def number(case):
    """`1.2.3` of the class `Case1_2_3`."""
    return case.__name__[len("Case"):].replace("_", ".")
