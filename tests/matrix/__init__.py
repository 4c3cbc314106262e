"""Every vision experiment that the installed Model Garden registers, put through this tool; `make test-matrix` keeps the record.

Each is composed from its file in `conf/experiment/catalogue`, built, trained three steps, killed, resumed, evaluated and
exported, on the tiny data of the tests.
"""
