"""Is a CEL text valid, and what is its value?

The Common Expression Language (https://github.com/google/cel-spec), as far as conditions need it:

    tokens      text -> tokens, within limits of length and depth
    syntax      tokens -> `Node`
    checks      refuse expressions that can never have a value
    functions   the functions and their arguments
    evaluation  `Node` -> value, with a bounded number of operations
    refusals    why there is no value, and a guard to write
    arithmetic  the results of + - * / %
    patterns    regular expressions, and their cost
    times       timestamps, durations and zones
    values      the kinds of values, and their equality

The package has its own implementation, because a library in native code has four faults.  It holds
the interpreter's lock without limit, and crashes the process on deep expressions.  It rounds
numbers beyond 64 bits, and does not report which key was null.

Values are read in place, without copies.  No I/O, no clock.
"""
