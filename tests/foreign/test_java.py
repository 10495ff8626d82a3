"""The artifact for Java is built with Maven, and used as the page shows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs import ROOT, block
from tests.foreign.jdks import UNREACHED, jdks
from tests.foreign.ports import output_with_few_ports
from tests.programs import NODE_PATIENCE, lacks, needs, output_of

pytestmark = [pytest.mark.process, pytest.mark.slow]

PAGE = "docs/build/java.md"
CLIENT = ROOT / "clients/java"
SHOWN = """
import java.io.*;
import java.util.Collections;
import javax.servlet.http.*;
import org.springframework.mock.web.*;
import org.springframework.web.cors.CorsUtils;
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
        ask(interceptor, "OPTIONS", null, "Origin", "https://shop.example", "Access-Control-Request-Method", "POST");
        ask(interceptor, "GET", issuer.authorization("o1"), "Authorization", issuer.authorization("o2"));
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

    static void ask(Shown interceptor, String method, String authorization, String... headers) throws Exception {
        MockHttpServletRequest request = new MockHttpServletRequest(method, "/orders");
        if (authorization != null) request.addHeader("Authorization", authorization);
        request.addHeader("Accept-Language", "zh-CN");
        for (int at = 0; at < headers.length; at += 2) request.addHeader(headers[at], headers[at + 1]);
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
false 401 missing_token
true 200
false 401 invalid_token
true 200
false 503 verification_unavailable
false 503 keys_unavailable
[openid, profile]
[] null
[true, true, false, false]
"""

LOGGED = """WARNING a token was refused: its signature does not fit the key 'test' of ISSUER
401 invalid_token
WARNING a token was refused: iss is 'https://evil??', this guard expects 'ISSUER'
401 invalid_token
WARNING a token was refused: aud is 'shop', this guard expects 'wxauth'
401 invalid_token
WARNING a token was refused: expired N s ago by this machine's clock
401 token_expired
401 invalid_token
401 token_expired
WARNING a token was refused: iat is N s in the future by this machine's clock
401 invalid_token
401 invalid_token
WARNING a token could not be verified at once: wxauth can't be asked about the session: \
the connection ended without a response
503 verification_unavailable
503 verification_unavailable
zh en zh en * en * en * en true
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
    install = block(PAGE, "mvn -q -f clients").splitlines()[0]
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


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the guard's classes, and of a program that uses the guard as no page shows it."""
    folder = tmp_path_factory.mktemp("trials")
    sources = [*(CLIENT / "guard/src/main").rglob("*.java"), Path(__file__).with_name("JavaTrials.java")]
    output_of(needs("javac"), "-Xlint:-options", "--release", "8", "-d", str(folder), *map(str, sources))
    return folder


def test_an_interrupted_thread_keeps_its_interrupt_and_is_no_outage(trials: Path) -> None:
    for java in [f"{home}/bin/java" for home in jdks()] or [needs("java")]:
        assert output_of(java, "-cp", trials, "JavaTrials", "interrupted") == (
            "503 keys_unavailable\ntrue\n503 verification_unavailable\n401 session_revoked\n"
        )


def test_a_machine_without_free_ports_is_no_outage(trials: Path) -> None:
    command = (needs("java"), "-Dhttp.keepAlive=false", "-cp", str(trials), "JavaTrials", "ports")
    assert output_with_few_ports(*command) == "admitted true\n503 verification_unavailable\n"


def test_the_log_tells_once_a_minute_why_tokens_are_refused_in_every_locale(trials: Path) -> None:
    said = output_of(needs("java"), "-Duser.language=ar", "-Duser.country=EG", "-cp", trials, "JavaTrials", "logged")
    assert re.sub(r"\d+ s (ago|in)", r"N s \1", said) == LOGGED


def test_the_artifact_has_the_version_of_wxauth() -> None:
    version = re.search(r"<version>(.*)</version>", (CLIENT / "guard/pom.xml").read_text())
    assert version is not None
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text()
