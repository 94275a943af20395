"""Judges the files of the local cluster as `up` writes them, without starting anything: the programs that read them do."""

import os
from dataclasses import replace

import pytest

import nginx
import parts
from script import ROOT, must_run, program
from settings import from_environment


@pytest.fixture(scope="module")
def settings():
    os.environ["CLUSTER_DIR"] = ".cluster/check/local"
    return from_environment()


@pytest.mark.parametrize("access_log", [False, True])
def test_nginx_accepts_its_configuration(settings, access_log):
    settings.logs.mkdir(parents=True, exist_ok=True)
    nginx.render(replace(settings, access_log=access_log), ["replica-1", "replica-2"])
    nginx.test(settings)


def test_promtool_accepts_prometheus_configuration_and_rules(settings):
    parts.prometheus(settings)
    must_run("promtool refuses", [program("promtool"), "check", "config", settings.home / "prometheus" / "prometheus.yml"])
    must_run("promtool refuses", [program("promtool"), "test", "rules", *sorted((ROOT / "prometheus" / "rules").glob("*_test.yml"))])
