"""Runs the page "Use follower database feature to share databases in Azure Data Explorer", section
by section, with the unmodified package azure-mgmt-kusto against a leader and a follower.

    python3 seed_page.py --binary target/debug/slipstream
"""

import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.mgmt.kusto import KustoManagementClient, models

import nodes

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
LEADER_GROUP = FOLLOWER_GROUP = "testrg"
CONFIGURATION = "adc"
DATABASE = "db"


class StaticCredential(SansIOHTTPPolicy):
    """A token that is always the same, also over http: the package's own policy insists on https."""

    TOKEN = "static"

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return AccessToken(self.TOKEN, int(time.time()) + 3600)

    def on_request(self, request) -> None:
        request.http_request.headers["authorization"] = f"Bearer {self.TOKEN}"


def client(node: nodes.Node) -> KustoManagementClient:
    credential = StaticCredential()
    return KustoManagementClient(
        credential=credential,
        subscription_id=SUBSCRIPTION,
        base_url=node.http,
        authentication_policy=credential,
        credential_scopes=["unused"],
        polling_interval=0,
    )


def cluster_id(node: nodes.Node) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{LEADER_GROUP}/providers/Microsoft.Kusto/Clusters/{node.cluster}"


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"expected {wanted!r}, found {found!r}")


def refused(code: str, attempt) -> str:
    try:
        attempt()
    except HttpResponseError as error:
        expect(error.error.code if error.error else error, code)
        return error.error.message
    raise AssertionError(f"it was taken, instead of {code}")


def eventually(what: str, probe) -> None:
    deadline = time.monotonic() + nodes.PATIENCE_SECONDS
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting: {what}")
        time.sleep(0.05)


class Page:
    """The page's samples, as methods."""

    def __init__(self, leader: nodes.Node, follower: nodes.Node):
        self.leader, self.follower = leader, follower
        self.at_leader, self.at_follower = client(leader), client(follower)

    def attach(self, database: str = DATABASE, kind: str = "Union", name: str = CONFIGURATION, **properties):
        """"Share a database using C#": CreateOrUpdate of a configuration."""
        location = self.follower_location()
        configuration = models.AttachedDatabaseConfiguration(
            cluster_resource_id=cluster_id(self.leader),
            database_name=database,
            default_principals_modification_kind=kind,
            location=location,
            **properties,
        )
        configurations = self.at_follower.attached_database_configurations
        return configurations.begin_create_or_update(
            FOLLOWER_GROUP, self.follower.cluster, name, configuration
        ).result()

    def follower_location(self) -> str:
        return self.at_follower.clusters.get(FOLLOWER_GROUP, self.follower.cluster).location

    def detach_on_follower(self, name: str = CONFIGURATION) -> None:
        configurations = self.at_follower.attached_database_configurations
        configurations.begin_delete(FOLLOWER_GROUP, self.follower.cluster, name).result()

    def detach_on_leader(self, name: str = CONFIGURATION) -> None:
        definition = models.FollowerDatabaseDefinition(
            cluster_resource_id=cluster_id(self.follower), attached_database_configuration_name=name
        )
        clusters = self.at_leader.clusters
        clusters.begin_detach_follower_databases(LEADER_GROUP, self.leader.cluster, definition).result()

    def database(self, name: str = DATABASE):
        return self.at_follower.databases.get(FOLLOWER_GROUP, self.follower.cluster, name)

    def databases(self) -> list[str]:
        found = self.at_follower.databases.list_by_cluster(FOLLOWER_GROUP, self.follower.cluster)
        return sorted(database.name.split("/")[1] for database in found)

    def configuration(self, name: str = CONFIGURATION):
        configurations = self.at_follower.attached_database_configurations
        return configurations.get(FOLLOWER_GROUP, self.follower.cluster, name)

    def followers(self) -> list:
        return list(self.at_leader.clusters.list_follower_databases(LEADER_GROUP, self.leader.cluster))

    def is_followed(self, name: str = DATABASE) -> bool:
        return self.at_leader.databases.get(LEADER_GROUP, self.leader.cluster, name).is_followed


def share(transcript: nodes.Transcript, page: Page) -> None:
    with transcript.check("share a database: a configuration attaches it"):
        attached = page.attach()
        expect(attached.provisioning_state, "Succeeded")
        expect(list(attached.attached_database_names), [DATABASE])
        expect(attached.cluster_resource_id, cluster_id(page.leader))
        rows, _ = page.follower.sql("SELECT sum(a) AS total FROM t", DATABASE)
        expect(rows, [{"total": 6}])
    with transcript.check("the same again changes nothing, and is listed once"):
        again = page.attach()
        expect(again.provisioning_state, "Succeeded")
        listed = page.at_follower.attached_database_configurations.list_by_cluster(
            FOLLOWER_GROUP, page.follower.cluster
        )
        expect([one.name for one in listed], [f"{page.follower.cluster}/{CONFIGURATION}"])
    with transcript.check("verify on the follower: a read-only database"):
        database = page.database()
        expect(database.kind, "ReadOnlyFollowing")
        expect(database.leader_cluster_resource_id, cluster_id(page.leader))
        expect(database.attached_database_configuration_name, CONFIGURATION)
        expect(database.original_database_name, DATABASE)
        expect(database.principals_modification_kind, "Union")
        expect(database.statistics.size > 0, True)
    with transcript.check("verify on the leader: shared with others, and with whom"):
        expect(page.is_followed(), True)
        found = page.followers()
        expect([(one.attached_database_configuration_name, one.database_name) for one in found], [(CONFIGURATION, DATABASE)])
        expect(found[0].cluster_resource_id, cluster_id(page.follower))
        expect(found[0].database_share_origin, "Direct")
        clusters = page.at_leader.clusters
        nested = list(clusters.list_follower_databases_get(LEADER_GROUP, page.leader.cluster))
        expect([one.properties.database_name for one in nested], [DATABASE])


def manage(transcript: nodes.Transcript, page: Page) -> None:
    with transcript.check("managing principals: the kind is changed by putting the configuration"):
        for kind in ["Replace", "None", "Union"]:
            page.attach(kind=kind)
            expect(page.database().principals_modification_kind, kind)
            expect(page.configuration().default_principals_modification_kind, kind)
    with transcript.check("managing principals: roles of the follower, by principal assignments"):
        assignments = page.at_follower.database_principal_assignments
        where = (FOLLOWER_GROUP, page.follower.cluster, DATABASE)
        wanted = models.DatabasePrincipalAssignment(
            principal_id="ada@example.org", role="Viewer", principal_type="User", tenant_id="t1"
        )
        made = assignments.begin_create_or_update(*where, "first", wanted).result()
        expect((made.principal_id, made.role, made.principal_type), ("ada@example.org", "Viewer", "User"))
        expect([one.principal_id for one in assignments.list(*where)], ["ada@example.org"])
        expect(list(page.at_leader.database_principal_assignments.list(LEADER_GROUP, page.leader.cluster, DATABASE)), [])
        assignments.begin_delete(*where, "first").result()
        expect(list(assignments.list(*where)), [])
    with transcript.check("managing principals and caching: the follower commands of the page"):
        kusto = KustoClient(KustoConnectionStringBuilder.with_no_authentication(page.follower.http))

        def run(text: str):
            return kusto.execute_mgmt(DATABASE, text).primary_results[0][0]

        for kind in ["replace", "none", "union"]:
            run(f".alter follower database {DATABASE} principals-modification-kind = {kind}")
            expect(page.database().principals_modification_kind, kind.capitalize())
        run(f".alter follower database {DATABASE} policy caching hot = 5d")
        expect(str(page.database().hot_cache_period), "5 days, 0:00:00")
        run(f".delete follower database {DATABASE} policy caching")
        expect(run(f".show follower database {DATABASE}")["CachingPolicyOverride"] or None, None)
    with transcript.check("configurable policies: the hot cache period of the follower alone"):
        update = models.ReadOnlyFollowingDatabase(hot_cache_period="P3D")
        databases = page.at_follower.databases
        updated = databases.begin_update(FOLLOWER_GROUP, page.follower.cluster, DATABASE, update).result()
        expect(str(updated.hot_cache_period), "3 days, 0:00:00")
        expect(str(page.database().hot_cache_period), "3 days, 0:00:00")
    with transcript.check("limitations: what is followed cannot be deleted, nor what is attached"):
        deletes = page.at_leader.databases.begin_delete
        message = refused("DatabaseFollowed", lambda: deletes(LEADER_GROUP, page.leader.cluster, DATABASE))
        expect(page.follower.cluster in message, True)
        deletes = page.at_follower.databases.begin_delete
        refused("DatabaseAttached", lambda: deletes(FOLLOWER_GROUP, page.follower.cluster, DATABASE))
    with transcript.check("the name of a configuration can be asked for"):
        asked = page.at_follower.attached_database_configurations.check_name_availability
        for name, is_free in [(CONFIGURATION, False), ("other", True)]:
            request = models.AttachedDatabaseConfigurationsCheckNameRequest(
                name=name, type="Microsoft.Kusto/clusters/attachedDatabaseConfigurations"
            )
            expect(asked(FOLLOWER_GROUP, page.follower.cluster, request).name_available, is_free)


def detach(transcript: nodes.Transcript, page: Page) -> None:
    with transcript.check("detach from the follower"):
        page.detach_on_follower()
        expect(page.databases(), [])
        expect(page.is_followed(), False)
        try:
            page.configuration()
        except ResourceNotFoundError:
            pass
        else:
            raise AssertionError("the configuration is still there")
    with transcript.check("attach again, then detach from the leader"):
        page.attach()
        expect(page.databases(), [DATABASE])
        page.detach_on_leader()
        expect(page.followers(), [])
        eventually("the follower lets go", lambda: page.databases() == [])
        rows, _ = page.leader.sql("SELECT count(*) AS n FROM t", DATABASE)
        expect(rows, [{"n": 3}])


def everything(transcript: nodes.Transcript, page: Page) -> None:
    with transcript.check("share all databases with '*', those created later too"):
        page.attach(database="*", name="everything", database_name_prefix="of_leader_")
        expect(page.databases(), [f"of_leader_{DATABASE}"])
        page.leader.sql("CREATE DATABASE later")
        wanted = [f"of_leader_{DATABASE}", "of_leader_later"]
        eventually("the later one appears", lambda: page.databases() == wanted)
        expect([one.database_name for one in page.followers()], ["*"])
        page.detach_on_follower("everything")
    with transcript.check("share some tables under another name"):
        sharing = models.TableLevelSharingProperties(tables_to_include=["t*"], tables_to_exclude=["*_secret"])
        page.attach(table_level_sharing_properties=sharing, database_name_override="part")
        expect(page.databases(), ["part"])
        found = page.database("part")
        expect(list(found.table_level_sharing_properties.tables_to_exclude), ["*_secret"])
        rows, _ = page.follower.sql(
            "SELECT table_name FROM slipstream.tables WHERE database_name = 'part'", "part"
        )
        expect(rows, [{"table_name": "t"}])
        page.detach_on_follower()
    with transcript.check("an invitation lets a cluster attach what it grants, and nothing else"):
        sharing = models.TableLevelSharingProperties(tables_to_include=["t"])
        request = models.DatabaseInviteFollowerRequest(
            invitee_email="ada@example.org", table_level_sharing_properties=sharing
        )
        answer = page.at_leader.database.invite_follower(LEADER_GROUP, page.leader.cluster, DATABASE, request)
        body = {
            "leader": page.leader.cluster,
            "database": DATABASE,
            "name": CONFIGURATION,
            "invitation": answer.generated_invitation,
        }
        page.follower.post_json("/v1/attachments", body)
        expect([one.database_share_origin for one in page.followers()], ["Other"])
        expect(list(page.configuration().table_level_sharing_properties.tables_to_include), ["t"])
        page.detach_on_follower()
        try:
            page.follower.post_json("/v1/attachments", {**body, "database": "later"})
        except nodes.Refused as error:
            expect("invitation_refused" in str(error), True)
        else:
            raise AssertionError("the invitation was taken for another database")


def mistakes(transcript: nodes.Transcript, page: Page) -> None:
    with transcript.check("error cases have stable codes, and change nothing"):
        many = models.TableLevelSharingProperties(tables_to_include=[f"t{n}" for n in range(101)])
        some = models.TableLevelSharingProperties(tables_to_include=["t"])
        none = models.TableLevelSharingProperties(tables_to_include=["nothing_*"])
        for code, attempt in [
            ("InvalidSharing", lambda: page.attach(table_level_sharing_properties=many)),
            ("InvalidSharing", lambda: page.attach("*", table_level_sharing_properties=some)),
            ("InvalidSharing", lambda: page.attach("*", database_name_override="x")),
            ("FilterMatchesNothing", lambda: page.attach(table_level_sharing_properties=none)),
            ("ResourceNotFound", lambda: page.attach("missing")),
            ("InvalidRequestContent", lambda: page.attach(kind="Both")),
        ]:
            refused(code, attempt)
        page.at_follower.clusters.get(FOLLOWER_GROUP, page.follower.cluster)
        refused("ResourceNotFound", lambda: page.at_follower.clusters.get(FOLLOWER_GROUP, "elsewhere"))
        expect(page.databases(), [])
        expect(page.followers(), [])


def main() -> int:
    options = nodes.arguments(__doc__.splitlines()[0]).parse_args()
    transcript = nodes.Transcript()
    with nodes.nodes(options) as (leader, follower):
        leader.sql(f"CREATE DATABASE {DATABASE}")
        leader.sql("CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2), (3)", DATABASE)
        leader.sql("CREATE TABLE t_secret (a INT)", DATABASE)
        page = Page(leader, follower)
        for section in [share, manage, detach, everything, mistakes]:
            section(transcript, page)
    return transcript.end()


if __name__ == "__main__":
    sys.exit(main())
