"""What the store believes, from whom, and which gateways are to be looked at then."""

from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.controller.store import RouteStore
from tests.operator.documents import route_document

DEFAULT = GatewayKey("shop", "default")
OTHER = GatewayKey("shop", "other")
STATUS = {"observedGeneration": 1}


def names(store: RouteStore, key: GatewayKey = DEFAULT) -> set[str]:
    return {route.name.name for route in store.routes_of(key)}


def store_of(*documents: dict[str, object]) -> RouteStore:
    store = RouteStore()
    for document in documents:
        store.put(document)
    return store


def test_a_new_route_has_its_gateway_looked_at() -> None:
    store = RouteStore()
    assert store.put(route_document()) == {DEFAULT}
    assert names(store) == {"chat"}
    assert store.keys() == {DEFAULT}


def test_a_route_that_changes_gateway_has_both_looked_at() -> None:
    store = store_of(route_document(gateway="default"))
    assert store.put(route_document(version=2, generation=2, gateway="other")) == {DEFAULT, OTHER}
    assert (names(store), names(store, OTHER)) == (set(), {"chat"})
    assert store.keys() == {OTHER}


def test_a_change_of_labels_alone_is_no_reason_to_look() -> None:
    store = store_of(route_document())
    assert store.put(route_document(version=2)) == frozenset()


def test_a_change_of_status_by_another_hand_is_one() -> None:
    store = store_of(route_document(status=STATUS))
    assert store.put(route_document(version=2, status={})) == {DEFAULT}


def test_our_own_write_of_a_status_is_none_nor_is_its_echo() -> None:
    store = store_of(route_document())
    written = route_document(version=2, status=STATUS)
    assert store.wrote(written) == frozenset()
    assert store.put(written) == frozenset()
    assert store.routes_of(DEFAULT)[0].status == STATUS


def test_a_write_that_meets_a_newer_spec_has_it_looked_at() -> None:
    store = store_of(route_document())
    assert store.wrote(route_document(version=3, generation=2, gateway="other", status=STATUS)) == {DEFAULT, OTHER}


def test_the_answer_to_a_write_does_not_bring_back_what_went_meanwhile() -> None:
    store = store_of(route_document())
    store.remove(route_document(version=3))
    assert store.wrote(route_document(version=2, status=STATUS)) == frozenset()
    assert names(store) == set()


def test_the_answer_to_a_write_can_show_that_the_route_is_going() -> None:
    store = store_of(route_document())
    assert store.wrote(route_document(version=2, deleted=True, status=STATUS)) == {DEFAULT}
    assert names(store) == set()


def test_an_older_event_is_passed_over() -> None:
    store = store_of(route_document(version=10, generation=2))
    assert store.put(route_document(version=9, generation=1)) == frozenset()
    assert store.routes_of(DEFAULT)[0].generation == 2


def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    store = RouteStore()
    for version in ("b", "a"):
        document = route_document(generation=ord(version))
        document["metadata"]["resourceVersion"] = version
        assert store.put(document) == {DEFAULT}


def test_the_end_of_a_former_route_does_not_take_the_new_one_of_its_name() -> None:
    store = store_of(route_document(uid="old"))
    store.put(route_document(uid="new", version=3))
    assert store.remove(route_document(uid="old", version=2)) == frozenset()
    assert names(store) == {"chat"}


def test_a_route_that_a_finalizer_holds_back_is_gone_already() -> None:
    store = store_of(route_document())
    assert store.put(route_document(version=2, deleted=True)) == {DEFAULT}
    assert names(store) == set()


def test_a_relist_takes_out_what_is_gone_and_puts_in_what_is_new() -> None:
    store = store_of(route_document("kept"), route_document("gone"))
    store.begin_relist(None)
    assert store.relisted(None, [route_document("kept"), route_document("new")]) == {DEFAULT}
    assert names(store) == {"kept", "new"}


def test_a_relist_that_finds_what_is_known_changes_nothing() -> None:
    store = store_of(route_document("kept"))
    store.begin_relist(None)
    assert store.relisted(None, [route_document("kept")]) == frozenset()


def test_a_relist_does_not_overrule_what_was_heard_since_it_began() -> None:
    store = store_of(route_document("deleted"), route_document("edited"))
    store.begin_relist(None)
    store.remove(route_document("deleted", version=6))
    store.put(route_document("edited", version=7, generation=2))
    store.put(route_document("created", version=8))
    store.relisted(None, [route_document("deleted"), route_document("edited")])
    assert {route.name.name: route.generation for route in store.routes_of(DEFAULT)} == {"edited": 2, "created": 1}


def test_a_relist_believes_what_is_older_where_a_backup_was_restored() -> None:
    store = store_of(route_document("back", version=900, generation=9))
    store.begin_relist(None)
    assert store.relisted(None, [route_document("back", version=400, generation=4)]) == {DEFAULT}
    assert [route.generation for route in store.routes_of(DEFAULT)] == [4]


def test_a_relist_of_one_namespace_leaves_the_others_alone() -> None:
    store = store_of(route_document("kept", namespace="a"), route_document("gone", namespace="b"))
    store.put(route_document("new", namespace="a"))
    store.begin_relist("b")
    assert store.relisted("b", []) == {GatewayKey("b", "default")}
    assert {str(route.name) for route in store.all()} == {"a/kept", "a/new"}


def test_a_spec_that_does_not_parse_belongs_to_the_gateway_that_it_names() -> None:
    document = route_document(gateway="other")
    document["spec"]["upstreams"] = 4
    store = store_of(document)
    (route,) = store.routes_of(OTHER)
    assert isinstance(route.spec, tuple)
    document = route_document("worse")
    document["spec"] = None
    store.put(document)
    assert names(store) == {"worse"}


def test_a_spec_is_parsed_once_a_generation() -> None:
    store = store_of(route_document())
    before = store.routes_of(DEFAULT)[0].spec
    store.put(route_document(version=2, status=STATUS))
    assert store.routes_of(DEFAULT)[0].spec is before
    store.put(route_document(version=3, generation=2))
    assert store.routes_of(DEFAULT)[0].spec is not before
