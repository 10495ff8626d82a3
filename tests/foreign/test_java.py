"""The artifact for Java is built with Maven, and used as the page shows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs import ROOT, block
from tests.foreign.jdks import UNREACHED, jdks
from tests.programs import NODE_PATIENCE, lacks, needs, output_of

pytestmark = [pytest.mark.process, pytest.mark.slow]

PAGE = "docs/build/java.md"
CLIENT = ROOT / "clients/java"
SHOWN = """
import java.io.*;
import javax.servlet.http.*;
import org.springframework.mock.web.*;
import org.springframework.web.servlet.HandlerInterceptor;
import wxauth.guard.*;
import wxauth.guard.testing.TestIssuer;

public class Shown implements HandlerInterceptor {
    WxauthGuard guard;

    @Override
    INTERCEPTOR

    static void of(HttpServletRequest request) {
        USE
    }

    public static void main(String[] none) throws Exception {
        TEST
        TestIssuer issuer = new TestIssuer();
        Shown interceptor = new Shown();
        interceptor.guard = WxauthGuard.of(issuer.url());
        ask(interceptor, "GET", issuer.authorization("o1"));
        ask(interceptor, "GET", issuer.authorization("o1").replace("Bearer", "bearer"));
        ask(interceptor, "GET", issuer.token().scope("openid").authorization());
        ask(interceptor, "GET", issuer.authorization("o1") + "\\n");
        ask(interceptor, "GET", null);
        ask(interceptor, "GET", "Basic x");
        ask(interceptor, "OPTIONS", null);
        issuer.away(true);
        ask(interceptor, "GET", issuer.authorization("o1"));
        interceptor.guard = interceptor.guard.current();
        ask(interceptor, "GET", issuer.authorization("o1"));
        interceptor.guard = WxauthGuard.of(issuer.url());
        ask(interceptor, "GET", issuer.authorization("o1"));
        WxauthGuard guard = WxauthGuard.builder(issuer.url()).websites().build();
        issuer.away(false);
        System.out.println(guard.verify(issuer.token().scope("openid  profile").authorization()).scope());
        System.out.println(guard.verify(issuer.authorization("o1")).scope() + " " + guard.optional().verify(null));
        boolean[] ours = new boolean[] {
            guard.isForThisGuard(issuer.authorization("o1")),
            guard.isForThisGuard(issuer.authorization("o1") + "x"),
            guard.isForThisGuard("Bearer 8f14e45f-ceea-467a-9575-7d5d9a5e3a6b"),
            guard.isForThisGuard("Bearer eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoxfQ.c2ln"),
        };
        System.out.println(java.util.Arrays.toString(ours));
        System.exit(0);
    }

    static void ask(Shown interceptor, String method, String authorization) throws Exception {
        MockHttpServletRequest request = new MockHttpServletRequest(method, "/orders");
        if (authorization != null) request.addHeader("Authorization", authorization);
        request.addHeader("Accept-Language", "zh-CN");
        MockHttpServletResponse response = new MockHttpServletResponse();
        boolean isAdmitted = interceptor.preHandle(request, response, null);
        String code = response.getContentAsString().replaceAll(".*\\"code\\":\\"(.*?)\\".*", "$1");
        System.out.println((isAdmitted + " " + response.getStatus() + " " + code).trim());
    }
}
"""
SPRING_5 = ("spring-webmvc", "spring-web", "spring-core", "spring-jcl", "spring-beans", "spring-context", "spring-test")
"""The artifacts of Spring 5 from Spring Boot 2.1.5."""
PRINTED = """true 200
true 200
false 403 insufficient_scope
false 401 invalid_token
false 401 missing_token
false 401 missing_token
true 200
true 200
false 503 verification_unavailable
false 503 keys_unavailable
[openid, profile]
[] null
[true, true, false, false]
"""


def run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NODE_PATIENCE)
    if UNREACHED.search(done.stdout + done.stderr):
        lacks(f"needs packages: {(done.stdout + done.stderr)[-300:]} 未能下载依赖包")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_artifact_is_built_from_nothing_and_used_as_the_page_shows_on_each_jdk(tmp_path: Path) -> None:
    needs("mvn")
    shutil.copytree(CLIENT, tmp_path / "clients/java", ignore=shutil.ignore_patterns("target"))
    repository = tmp_path / "repository"
    install = block(PAGE, "javac -cp clients").splitlines()[0]
    run("sh", "-c", f"{install} -Dmaven.repo.local={repository}", folder=tmp_path)
    [jar] = (repository / "wxauth/wxauth-guard/0.1.0").glob("*.jar")
    jars = [f"org.springframework:{name}:5.1.7.RELEASE" for name in SPRING_5]
    for name in (*jars, "javax.servlet:javax.servlet-api:4.0.1"):
        run(
            "mvn",
            "-q",
            "dependency:copy",
            f"-Dartifact={name}",
            f"-DoutputDirectory={tmp_path / 'jars'}",
            folder=tmp_path,
        )
    shown = SHOWN.replace("INTERCEPTOR", block(PAGE, "public boolean preHandle"))
    shown = shown.replace("USE", block(PAGE, "WxauthUser user = guard.verify"))
    (tmp_path / "Shown.java").write_text(shown.replace("TEST", block(PAGE, "new TestIssuer()")))
    path = f"{tmp_path}:{jar}:{tmp_path}/jars/*"
    run(needs("javac"), "--release", "8", "-Xlint:-options", "-cp", path, "Shown.java", folder=tmp_path)
    for java in [f"{home}/bin/java" for home in jdks()] or [needs("java")]:
        assert output_of(java, "-cp", path, "Shown") == PRINTED


def test_the_artifact_has_the_version_of_wxauth() -> None:
    version = re.search(r"<version>(.*)</version>", (CLIENT / "guard/pom.xml").read_text())
    assert version is not None
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text()
