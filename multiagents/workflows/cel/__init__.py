"""Does a text of CEL mean something, and what is its value?

The Common Expression Language (https://github.com/google/cel-spec), as conditions need it:

    tokens      text -> its pieces, within limits of length and depth
    syntax      pieces -> `Node`
    checks      what can never have a value is refused before it is evaluated
    functions   what can be called, on what
    evaluation  `Node` -> value, with a bounded number of operations
    refusals    why there is no value, and the guard to write
    arithmetic  what + - * / % give
    patterns    what a regular expression finds, and what it costs
    times       timestamps, durations and zones
    values      what kinds of values there are, and what equals what

It is our own because a library in native code holds the interpreter's lock as long as it likes,
ends the process on deep expressions, rounds numbers beyond 64 bits, and cannot say which key was
null.  Values are read where they lie; nothing is copied.  No I/O, no clock.
"""
