"""The program: arguments, and the server."""

import argparse
import os
import signal
import sys
import threading
import time

# moto reads these when it is imported.
# 1,300 images in every region that is asked for anything; `images` makes those that somebody names.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"


def end_with(parent: int) -> None:
    """Ends when the test that started it does, however that ends."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/peers/aws/serve", description="AWS for tests, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--types", default="", help="the instance types that there are, separated by commas; without it, all")
    parser.add_argument("--stay", action="store_true", help="go on when whoever started it is gone")
    arguments = parser.parse_args()
    if not arguments.stay:
        threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    from .peer import Peer
    from .server import serve

    types = [name for name in arguments.types.split(",") if name]
    try:
        serve(Peer(types), arguments.port)
    except KeyboardInterrupt:
        sys.exit(0)


main()
