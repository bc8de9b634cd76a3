"""Where do tests of earlier versions import the stub language model from?"""

from multiagents.testing.stub_lm import StubProvider

__all__ = ["StubProvider"]
