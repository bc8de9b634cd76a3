"""The shop's two addresses."""

from django.urls import path

from orders import views

urlpatterns = [
    path("orders/", views.place),
    path("orders/<uuid:order_id>/", views.show),
]
