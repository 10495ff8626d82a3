"""The starters for Spring Boot are built with Maven, and guard real projects of several versions."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs import ROOT, block
from tests.foreign.jdks import UNREACHED, jdks
from tests.programs import NODE_PATIENCE, lacks, needs

pytestmark = [pytest.mark.process, pytest.mark.slow]

CLIENT = ROOT / "clients/java"
PROJECT = ROOT / "tests/foreign/spring"
STARTER, STARTER_2 = "wxauth-spring-boot-starter", "wxauth-spring-boot2-starter"


@dataclass(frozen=True, slots=True)
class Boot:
    version: str
    starter: str = STARTER
    release: int = 17
    jdk: int = 0
    properties: str = ""
    otherwise: Mapping[str, str] = field(default_factory=dict)
    """The answers that this version's own dispatcher and chain give, which are no matter of the starter."""


FIREWALLED = ("POST /call-backs/pay;a=1", "POST /call-backs/../whoami", "GET //free", "GET /free/../whoami")

BOOTS = [
    Boot("3.0.0", otherwise={f"guest, {line}": "200" for line in FIREWALLED}),  # its refusal has no status, and no body
    Boot("3.5.16"),
    Boot("4.1.2", jdk=-1, properties="<netty.version>4.2.18.Final</netty.version>"),  # its own has no HTTP/3 here
    Boot(
        "2.7.18",
        STARTER_2,
        release=8,
        otherwise={
            # Paths with a slash at the end are the same, and the firewall's refusal is an exception.
            "guest, POST /call-backs/pay/": "200 pay of guest",
            "guest, GET /free/": "200 guest",
            **{f"guest, {line}": "500" for line in FIREWALLED},
        },
    ),
]


def run(folder: Path, *command: str, **env: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=NODE_PATIENCE, env={**os.environ, **env}
    )
    if UNREACHED.search(done.stdout + done.stderr):
        lacks(f"needs packages: {(done.stdout + done.stderr)[-300:]} 未能下载依赖包")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a local repository of Maven that has nothing but our artifacts and what these need."""
    needs("mvn")
    folder = tmp_path_factory.mktemp("java")
    shutil.copytree(CLIENT, folder / "java", ignore=shutil.ignore_patterns("target"))
    run(folder / "java", "mvn", "-q", "install", f"-Dmaven.repo.local={folder / 'repository'}")
    return folder / "repository"


def answers(printed: str) -> list[str]:
    """Return the answers. Only the project's own login may begin a session, and does so differently in each version."""
    is_owns = re.compile(r"(guest|own|other|wrong|two|website|right with cookie)\b")
    return [re.sub(r" *cookie$" if is_owns.match(line) else " *$", "", line.rstrip()) for line in printed.splitlines()]


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.version)
def test_a_starter_guards_projects_without_and_beside_a_login(boot: Boot, repository: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(PROJECT, tmp_path / "shop"))
    dependency = f"<groupId>wxauth</groupId><artifactId>{boot.starter}</artifactId><version>0.1.0</version>"
    pom = (
        (project / "pom.template")
        .read_text()
        .replace("SPRING_BOOT", boot.version)
        .replace("RELEASE", str(boot.release))
    )
    pom = pom.replace("PROPERTIES", boot.properties).replace("DEPENDENCY", f"<dependency>{dependency}</dependency>")
    (project / "pom.xml").write_text(pom)
    reactive = [] if boot.starter == STARTER_2 else ["shop.flux.App"]
    if not reactive:
        shutil.rmtree(project / "src/main/java/shop/flux")
        for source in project.rglob("*.java"):
            code = source.read_text().replace("jakarta.servlet", "javax.servlet")
            source.write_text(code.replace("securityMatcher", "antMatcher"))
    home = {"JAVA_HOME": jdks()[boot.jdk]} if jdks() else {}
    goals = ("compile", "dependency:build-classpath", "-Dmdep.outputFile=classpath")
    run(project, "mvn", "-q", *goals, f"-Dmaven.repo.local={repository}", **home)
    java = f"{home['JAVA_HOME']}/bin/java" if home else needs("java")
    classpath = f"target/classes:{(project / 'classpath').read_text()}"
    printed = run(project, java, "-XX:TieredStopAtLevel=1", "-cp", classpath, "shop.Table", *reactive)
    expected = (PROJECT / "answers.txt").read_text()
    if not reactive:
        expected = expected.partition("\nreactive\n")[0]
    for request, answer in boot.otherwise.items():
        expected = re.sub(rf"(?m)^{re.escape(request)}: .*$", f"{request}: {answer}", expected)
    assert answers(printed) == answers(expected)


IMPORTS = """
import static org.springframework.security.test.web.servlet.setup.SecurityMockMvcConfigurers.springSecurity;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.post;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.*;

import java.util.*;
import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.boot.test.context.TestConfiguration;
import org.springframework.context.annotation.*;
import org.springframework.http.*;
import org.springframework.security.access.prepost.PreAuthorize;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.stereotype.Component;
import org.springframework.test.context.*;
import org.springframework.test.web.servlet.MockMvc;
import org.springframework.test.web.servlet.setup.MockMvcBuilders;
import org.springframework.web.bind.annotation.*;
import org.springframework.web.context.WebApplicationContext;
import wxauth.guard.WxauthUser;
import wxauth.guard.testing.TestIssuer;
import wxauth.spring.*;
"""
ALONE = """
record Refund(String of) {}

class Refunds {
    List<Refund> of(String user) {
        return List.of(new Refund(user));
    }
}

@RestController
class RefundRoutes {
    Refunds refunds = new Refunds();

    ROUTE
}

TEST
"""
MEMBERS = """
record Member(String wxauthId) {}

@Component
class MemberMapper {
    Map<String, Member> rows = new HashMap<>();

    Member findByWxauthId(String id) {
        return rows.get(id);
    }

    int claim(String id, String externalId, String openid, String phone) {
        return 0;
    }

    void insert(String id, String openid) {
        rows.put(id, new Member(id));
    }
}

BEAN

@Configuration
class Envelope {
    REFUSALS
}

@RestController
class MemberRoutes {
    @PostMapping("/member/login")
    String login(@AuthenticationPrincipal Member member) {
        return member.wxauthId();
    }

    @GetMapping("/goods/1")
    String goods(@RequestAttribute(required = false) WxauthUser wxauth) {
        return wxauth == null ? "guest" : wxauth.openid();
    }
}

@SpringBootTest(properties = {OPEN, LOGIN})
class MembersTest {
    static final TestIssuer WXAUTH = new TestIssuer();

    @DynamicPropertySource
    static void settings(DynamicPropertyRegistry settings) {
        settings.add("wxauth.issuer", WXAUTH::url);
    }

    @Test
    void onlyTheLoginMakesMembers(@Autowired WebApplicationContext app) throws Exception {
        MockMvc mvc = MockMvcBuilders.webAppContextSetup(app).apply(springSecurity()).build();
        String user = WXAUTH.authorization("o1");
        mvc.perform(get("/goods/1")).andExpect(content().string("guest"));
        mvc.perform(get("/goods/1").header("Authorization", user)).andExpect(content().string("o1"));
        mvc.perform(get("/orders").header("Authorization", user)).andExpect(jsonPath("$.code").value(403));
        mvc.perform(post("/member/login").header("Authorization", user))
                .andExpect(content().string(TestIssuer.USER_ID));
        mvc.perform(get("/goods/1").header("Authorization", user)).andExpect(content().string("o1"));
        mvc.perform(get("/orders")).andExpect(jsonPath("$.msg").value("Please log in."));
    }
}
"""


def in_java(properties: str) -> str:
    return f'"{properties.strip()}"'


def test_the_code_of_the_page_does_what_the_page_says(repository: Path, tmp_path: Path) -> None:
    page = "docs/build/spring.md"
    project = Path(
        shutil.copytree(ROOT / "examples/spring", tmp_path / "orders", ignore=shutil.ignore_patterns("target"))
    )
    dependency = re.sub(r"\s", "", block(page, "<dependency>"))
    assert dependency in re.sub(r"\s", "", (project / "pom.xml").read_text())
    assert block(page, "wxauth.issuer=").strip() in (project / "src/main/resources/application.properties").read_text()
    tests = project / "src/test/java/com/example"
    alone = ALONE.replace("ROUTE", block(page, '@GetMapping("/refunds")')).replace(
        "TEST", block(page, "@SpringBootTest")
    )
    members = MEMBERS.replace("BEAN", block(page, "@Component")).replace("REFUSALS", block(page, "@Bean"))
    members = members.replace("OPEN", in_java(block(page, "wxauth.open-paths")))
    members = members.replace("LOGIN", in_java(block(page, "wxauth.login-path")))
    # Each application takes the parts of its own package alone.
    for package, name, code in (("alone", "RefundsTest", alone), ("members", "MembersTest", members)):
        app = (project / "src/main/java/com/example/orders/App.java").read_text()
        (tests / package).mkdir()
        (tests / package / "App.java").write_text(app.replace("com.example.orders", f"com.example.{package}"))
        (tests / package / f"{name}.java").write_text(f"package com.example.{package};\n{IMPORTS}{code}")
    run(project, "mvn", "-q", "test", f"-Dmaven.repo.local={repository}")
