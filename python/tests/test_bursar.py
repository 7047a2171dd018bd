"""Needs nothing but Python: ``python3 -m unittest discover -s python/tests -t python``."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

import bursar

PYTHON = Path(__file__).resolve().parent.parent


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BURSAR_")}
        environment = mock.patch.dict(os.environ, clean, clear=True)
        environment.start()
        self.addCleanup(environment.stop)


class Reports(Case):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "metrics.jsonl"
        os.environ["BURSAR_METRICS"] = str(self.path)

    def lines(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def test_each_call_is_a_line(self):
        bursar.report(step=1, loss=0.5)
        bursar.report(step=2, loss=float("nan"), accuracy=True)
        first, second = self.lines()
        self.assertEqual(first, {"step": 1, "loss": 0.5})
        self.assertNotEqual(second["loss"], second["loss"])

    def test_what_becomes_a_number_is_one_and_what_does_not_is_an_error(self):
        class Tensor:
            def __float__(self):
                return 0.25

        bursar.report(loss=Tensor())
        self.assertEqual(self.lines(), [{"loss": 0.25}])
        with self.assertRaises((TypeError, ValueError)):
            bursar.report(loss="low")

    def test_only_the_first_process_reports(self):
        os.environ["RANK"] = "1"
        bursar.report(step=1)
        self.assertFalse(self.path.exists())

    def test_lines_of_threads_stay_whole(self):
        def many(number):
            for step in range(200):
                bursar.report(step=step, thread=number)

        threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(self.lines()), 800)

    def test_nothing_happens_where_nothing_can_be_written(self):
        os.environ["BURSAR_METRICS"] = str(self.folder / "no" / "such" / "folder")
        bursar.report(step=1)
        del os.environ["BURSAR_METRICS"]
        bursar.report(step=1)


class Checkpoints(Case):
    def setUp(self):
        super().setUp()
        os.environ["BURSAR_CHECKPOINT_DIR"] = str(self.folder / "checkpoints")

    def save(self, step, text, **options):
        with bursar.checkpoint(step, **options) as folder:
            (folder / "model").write_text(text)

    def test_the_newest_whole_one_is_found_and_older_ones_go(self):
        self.assertIsNone(bursar.latest_checkpoint())
        for step in [5, 10, 100]:
            self.save(step, str(step))
        step, folder = bursar.latest_checkpoint()
        self.assertEqual((step, (folder / "model").read_text()), (100, "100"))
        self.assertEqual(len(list(bursar.checkpoint_dir().iterdir())), 2)

    def test_a_failure_in_the_middle_leaves_the_one_before(self):
        self.save(1, "good")
        with self.assertRaises(RuntimeError):
            with bursar.checkpoint(2) as folder:
                (folder / "model").write_text("half")
                raise RuntimeError
        self.assertEqual(bursar.latest_checkpoint()[0], 1)
        self.assertEqual(len(list(bursar.checkpoint_dir().iterdir())), 1)

    def test_the_same_step_may_be_saved_again(self):
        self.save(1, "one")
        self.save(1, "other")
        self.assertEqual((bursar.latest_checkpoint()[1] / "model").read_text(), "other")
        self.assertEqual(len(list(bursar.checkpoint_dir().iterdir())), 1)

    def test_a_process_killed_in_the_middle_leaves_nothing_that_is_taken_for_one(self):
        self.save(1, "good")
        script = (
            "import bursar, os, signal\n"
            "with bursar.checkpoint(2) as folder:\n"
            "    (folder / 'model').write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        environment = dict(os.environ, PYTHONPATH=str(PYTHON))
        ended = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
        self.assertEqual(ended.returncode, -signal.SIGKILL)
        self.assertEqual(len(list(bursar.checkpoint_dir().iterdir())), 2)
        self.assertEqual(bursar.latest_checkpoint()[0], 1)
        self.assertEqual(len(list(bursar.checkpoint_dir().iterdir())), 1)

    def test_elsewhere_they_lie_where_one_says(self):
        del os.environ["BURSAR_CHECKPOINT_DIR"]
        self.assertEqual(bursar.checkpoint_dir(self.folder / "mine"), self.folder / "mine")
        self.save(3, "here", folder=self.folder / "mine")
        self.assertEqual(bursar.latest_checkpoint(self.folder / "mine")[0], 3)


class Notices(Case):
    def show(self, seconds, form="%Y-%m-%dT%H:%M:%S.%f"):
        path = self.folder / "notice.json"
        gone_at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        path.write_text(json.dumps({"gone_at": gone_at.strftime(form)[:-3] + "Z"}))
        os.environ["BURSAR_NOTICE_FILE"] = str(path)

    def test_there_is_none_until_there_is_one(self):
        self.assertIsNone(bursar.notice())
        os.environ["BURSAR_NOTICE_FILE"] = str(self.folder / "notice.json")
        self.assertIsNone(bursar.notice())
        (self.folder / "notice.json").write_text("{\"gone")
        self.assertIsNone(bursar.notice(), "one that is being written")
        self.show(30)
        self.assertTrue(25 < bursar.notice() <= 30)
        self.assertTrue(bursar.should_stop())
        self.show(-5)
        self.assertEqual(bursar.notice(), 0)

    def test_sigterm_is_a_wish_once_somebody_asks(self):
        script = (
            "import bursar, time\n"
            "told = []\n"
            "bursar.on_stop(lambda: told.append(1))\n"
            "assert not bursar.should_stop()\n"
            "print('ready', flush=True)\n"
            "while not bursar.should_stop():\n"
            "    time.sleep(0.01)\n"
            "print('saved', len(told), flush=True)\n"
        )
        environment = dict(os.environ, PYTHONPATH=str(PYTHON))
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
        )
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=30)[0], "saved 1\n")
        self.assertEqual(process.returncode, 0)


class Places(Case):
    def test_a_laptop_is_a_place_of_its_own(self):
        for name in ["RANK", "LOCAL_RANK", "WORLD_SIZE"]:
            os.environ.pop(name, None)
        self.assertFalse(bursar.running_under_bursar())
        self.assertIsNone(bursar.experiment_id())
        place = (bursar.rank(), bursar.local_rank(), bursar.world_size(), bursar.attempt())
        self.assertEqual(place, (0, 0, 1, 1))

    def test_under_bursar_and_torchrun_it_is_what_they_say(self):
        said = {"BURSAR_ATTEMPT_ID": "att_1", "BURSAR_ATTEMPT": "3", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
        os.environ.update(said)
        self.assertTrue(bursar.running_under_bursar())
        place = (bursar.rank(), bursar.local_rank(), bursar.world_size(), bursar.attempt())
        self.assertEqual(place, (5, 1, 8, 3))
        self.assertFalse(bursar.is_main())


class TransformersExample(Case):
    """Against the part of the callback interface that it uses, not the real package, which is gigabytes."""

    def test_it_reports_what_is_logged_and_stops_the_training_on_a_notice(self):
        fake = types.ModuleType("transformers")
        fake.TrainerCallback = type("TrainerCallback", (), {})
        with mock.patch.dict(sys.modules, {"transformers": fake}):
            path = PYTHON / "examples" / "transformers_callback.py"
            spec = importlib.util.spec_from_file_location("transformers_callback", str(path))
            example = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(example)
        callback = example.BursarCallback()
        os.environ["BURSAR_METRICS"] = str(self.folder / "metrics")
        state = types.SimpleNamespace(is_world_process_zero=True, global_step=7, max_steps=100)
        control = types.SimpleNamespace(should_save=False, should_training_stop=False)
        callback.on_log(None, state, control, logs={"loss": 0.5, "note": "text"})
        line = json.loads((self.folder / "metrics").read_text())
        self.assertEqual(line, {"step": 7, "loss": 0.5, "total_steps": 100})
        self.assertFalse(callback.on_step_end(None, state, control).should_training_stop)
        (self.folder / "notice").write_text(json.dumps({"gone_at": "2100-01-01T00:00:00Z"}))
        os.environ["BURSAR_NOTICE_FILE"] = str(self.folder / "notice")
        control = callback.on_step_end(None, state, control)
        self.assertTrue(control.should_save and control.should_training_stop)


if __name__ == "__main__":
    unittest.main()
