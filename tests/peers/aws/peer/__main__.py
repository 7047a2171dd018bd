"""The program: arguments, and the server."""

import argparse
import os
import signal
import sys

# moto reads these when it is imported.
os.environ.setdefault("MOTO_ENABLE_AMI_VALIDATION", "1")
os.environ.setdefault("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/peers/aws/serve", description="AWS for tests, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--types", default="", help="the instance types that there are, separated by commas; without it, all")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    from .peer import Peer
    from .server import serve

    types = [name for name in arguments.types.split(",") if name]
    try:
        serve(Peer(types), arguments.port)
    except KeyboardInterrupt:
        sys.exit(0)


main()
