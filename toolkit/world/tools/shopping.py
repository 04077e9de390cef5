"""A web shop: products, the user's cart and orders."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import words
from toolkit.world.rationale import among
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, number, optional, part, string, tool
from toolkit.world.world import World


@part("shopping")
def build(r: Random, w: World) -> dict[str, Any]:
    products = []
    for n, (kind, brand) in enumerate(
        zip(r.sample(words("product"), 10), r.choices(words("brand"), k=10), strict=True)
    ):
        price = 0.0
        for size in ("", " Plus"):
            price = round(r.uniform(8, 120) if not size else price * r.uniform(1.1, 1.6), 2)
            products.append(
                {
                    "id": f"P{1000 + n * 20 + len(size) + r.randrange(6)}",
                    "name": f"{brand} {kind}{size}",
                    "price": price,
                    "stock": r.randint(0, 30),
                }
            )
    cart = [{"product_id": p["id"], "quantity": r.randint(1, 3)} for p in r.sample(products, 3)]
    orders = [
        {
            "id": f"ORD{5000 + n * 31 + r.randrange(30)}",
            "item": r.choice(products)["name"],
            "status": status,
            "total": round(r.uniform(15, 300), 2),
            "arrives_in_days": r.randint(1, 9),
        }
        for n, status in enumerate(("processing", "processing", "shipped", "delivered", "delivered"))
    ]
    return {
        "products": products,
        "cart": cart,
        "orders": orders,
        "coupon": None,
        "coupons": {f"SAVE{n}": n for n in (5, 10, 15, 20)},
    }


def _product(w: World, product_id: str) -> dict[str, Any]:
    for product in w["shopping"]["products"]:
        if product["id"] == product_id:
            return dict(product)
    raise ToolFailure(f"no product {product_id}")


def _order(w: World, order_id: str) -> dict[str, Any]:
    orders: list[dict[str, Any]] = w["shopping"]["orders"]
    for order in orders:
        if order["id"] == order_id:
            return order
    raise ToolFailure(f"no order {order_id}")


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["shopping"]
    product = r.choice([p for p in state["products"] if p["stock"] > 3])
    kind = product["name"].removesuffix(" Plus").split(" ", 1)[1]
    return {
        "query": kind,
        "max_price": r.randrange(60, 200, 5),
        "product_id": product["id"],
        "quantity": r.randint(2, 4),
        "order_id": r.choice(state["orders"])["id"],
        "open_order": r.choice([o for o in state["orders"] if o["status"] == "processing"])["id"],
        "coupon": r.choice(list(state["coupons"])),
        "reason": Said(
            why := r.choice(
                (
                    "too small",
                    "wrong colour",
                    "arrived broken",
                    "ordered by mistake",
                    "not as described",
                    "too loud",
                    "a gift I already had",
                )
            ),
            f'"{why}"',
        ),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    sent = [o["id"] for o in w["shopping"]["orders"] if o["status"] == "delivered"]
    return {"product_id": f"P{r.randint(3000, 9000)}", "order_id": r.choice(sent)}


_PRODUCT = string("Product id, as in P1042.")
_ORDER = string("Order id, as in ORD5017.")


@tool(
    "shopping",
    "Search the shop for products by a word in their name.",
    sample=_slots,
    near=("product_details",),
    params={"query": string("What to look for."), "max_price": optional(number("Highest price in euros.", 0))},
)
def search_products(w: World, query: str, max_price: float | None = None) -> Any:
    rows = [
        {key: product[key] for key in ("id", "name", "price")}
        for product in w["shopping"]["products"]
        if query.lower() in product["name"].lower() and (max_price is None or product["price"] <= max_price)
    ]
    return {"products": rows[:5]}


@tool(
    "shopping",
    "Show name, price and stock of one product.",
    sample=_slots,
    bad=_bad,
    near=("search_products",),
    params={"product_id": _PRODUCT},
)
def product_details(w: World, product_id: str) -> Any:
    return _product(w, product_id)


@tool(
    "shopping",
    "Put a product into the cart.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"product_id": _PRODUCT, "quantity": integer("How many.", 1, 99)},
)
def add_to_cart(w: World, product_id: str, quantity: int) -> Any:
    product = _product(w, product_id)
    if product["stock"] < quantity:
        raise ToolFailure(f"only {product['stock']} of {product['name']} in stock")
    for line in w["shopping"]["cart"]:
        if line["product_id"] == product_id:
            line["quantity"] += quantity
            break
    else:
        w["shopping"]["cart"].append({"product_id": product_id, "quantity": quantity})
    return {"added": product["name"], "quantity": quantity, "subtotal": round(product["price"] * quantity, 2)}


@tool(
    "shopping",
    "Show what is in the cart and what it costs.",
    sample=_slots,
    near=(),
)
def view_cart(w: World) -> Any:
    lines = [{**line, **_product(w, line["product_id"])} for line in w["shopping"]["cart"]]
    rows = [
        {"product_id": row["id"], "name": row["name"], "quantity": row["quantity"], "price": row["price"]}
        for row in lines
    ]
    return {"lines": rows, "total": round(sum(row["price"] * row["quantity"] for row in rows), 2)}


@tool(
    "shopping",
    "Take a product out of the cart.",
    sample=lambda r, w: {"product_id": r.choice(w["shopping"]["cart"])["product_id"]},
    bad=_bad,
    near=(),
    params={"product_id": _PRODUCT},
)
def remove_from_cart(w: World, product_id: str) -> Any:
    cart = w["shopping"]["cart"]
    for line in cart:
        if line["product_id"] == product_id:
            cart.remove(line)
            return {"removed": _product(w, product_id)["name"], "lines_left": len(cart)}
    raise ToolFailure(f"{product_id} isn't in the cart")


@tool(
    "shopping",
    "Show the status of an order and when it arrives.",
    sample=_slots,
    bad=lambda r, w: {"order_id": f"ORD{r.randint(7000, 9999)}"},
    near=(),
    params={"order_id": _ORDER},
)
def track_order(w: World, order_id: str) -> Any:
    order = dict(_order(w, order_id))
    days = order.pop("arrives_in_days")
    return order if order["status"] == "delivered" else {**order, "arrives_in_days": days}


@tool(
    "shopping",
    "Cancel an order that has not been shipped yet.",
    sample=lambda r, w: {"order_id": _slots(r, w)["open_order"]},
    bad=_bad,
    near=("return_order",),
    params={"order_id": _ORDER},
)
def cancel_order(w: World, order_id: str) -> Any:
    order = _order(w, order_id)
    if order["status"] != "processing":
        raise ToolFailure(f"order {order_id} is already {order['status']}")
    order["status"] = "cancelled"
    return {"cancelled": order_id, "item": order["item"], "refund": order["total"]}


@tool(
    "shopping",
    "Apply a coupon code to the cart.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"coupon": string("The code.")},
)
def apply_coupon(w: World, coupon: str) -> Any:
    if coupon not in w["shopping"]["coupons"]:
        raise ToolFailure(f"coupon {coupon} isn't valid")
    w["shopping"]["coupon"] = coupon
    total = view_cart(w)["total"]
    return {
        "coupon": coupon,
        "percent": w["shopping"]["coupons"][coupon],
        "total": round(total * (1 - w["shopping"]["coupons"][coupon] / 100), 2),
    }


@tool(
    "shopping",
    "Ask to return a delivered order.",
    sample=lambda r, w: {**_slots(r, w), "order_id": _bad(r, w)["order_id"]},
    held_out=True,
    near=("cancel_order",),
    params={"order_id": _ORDER, "reason": string("Why it is returned, in the user's words.")},
)
def return_order(w: World, order_id: str, reason: str) -> Any:
    order = _order(w, order_id)
    if order["status"] != "delivered":
        raise ToolFailure(f"order {order_id} is {order['status']}, only delivered orders can be returned")
    order.update(status="return requested", reason=reason)
    return {"order": order_id, "item": order["item"], "status": order["status"]}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = _slots(r, w)
    old = _bad(r, w)["order_id"]
    return {
        **{f"_{key}": value for key, value in found.items()},
        "_old": old,
        "_form": Said("N% cheaper now", '"N% cheaper now"'),
    }


def _cheapest(do: Any, query: str, quantity: int) -> dict[str, Any]:
    rows = do("search_products", query=query)["products"]
    if len(rows) < 2 or len({row["price"] for row in rows}) < len(rows):
        raise Unsuitable("nothing to choose from")
    best: dict[str, Any] = min(rows, key=lambda row: row["price"])
    do.because("most", **among([row["price"] for row in rows], best["price"], "lowest", best["id"]))
    do("add_to_cart", product_id=best["id"], quantity=quantity)
    return best


@chain("shopping", "search_products", "add_to_cart", sample=_chain_slots)
def add_cheapest(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return _cheapest(do, s["_query"], s["_quantity"])


@chain("shopping", "search_products", "add_to_cart", "view_cart", sample=_chain_slots)
def add_cheapest_total(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return {**_cheapest(do, s["_query"], s["_quantity"]), "total": do("view_cart")["total"]}


@chain("shopping", "view_cart", "remove_from_cart", sample=_chain_slots)
def remove_dearest(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do("view_cart")["lines"]
    dear = max(rows, key=lambda row: row["price"])
    do.because("most", **among([row["price"] for row in rows], dear["price"], "highest", dear["product_id"]))
    return {"price": dear["price"], **do("remove_from_cart", product_id=dear["product_id"])}


@chain("shopping", "track_order", "cancel_order", sample=_chain_slots)
def cancel_if_processing(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    do("track_order", order_id=s["_open_order"])
    return do("cancel_order", order_id=s["_open_order"])


@chain("shopping", "apply_coupon", "return_order", sample=_chain_slots)
def coupon_or_return(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """The coupon decides by its percentage which reason the return gets."""
    percent = do("apply_coupon", coupon=s["_coupon"])["percent"]
    reason = s["_form"].replace("N", str(percent))
    return {"percent": percent, **do("return_order", order_id=s["_old"], reason=reason)}
